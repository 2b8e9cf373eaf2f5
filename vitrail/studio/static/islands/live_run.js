// The page of a run while it trains: curves grow, words and images change. The page itself is right without this.
import { swap } from "./swap.js";

const STREAMS = 2; // open connections of one browser for all its tabs: it has six, and pages need some
const PAUSE = 2000; // between two questions of a tab that may not keep a connection open

const words = document.getElementById("words");
const box = document.getElementById("curves");
const address = words.dataset.address;
const charts = {};
const data = { score: [[], []], loss: [[], []] };
let offset = 0;
let stop = null;
let over = ["done", "stopped", "failed"].includes(words.firstElementChild.dataset.condition);

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function draw(kind, label) {
  const place = box.querySelector(`[data-chart="${kind}"]`);
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  const options = {
    width: place.clientWidth,
    height: 240,
    scales: { x: { time: false } },
    legend: { show: true, live: true },
    cursor: { drag: { x: true, y: false } },
    axes: [axis, { ...axis, size: 58 }],
    series: [{ label: box.dataset.epoch }, { label, stroke: colour(kind === "score" ? "--blue" : "--gold"), width: 2, points: { show: kind === "score" && data[kind][0].length < 60 } }],
  };
  charts[kind]?.destroy();
  charts[kind] = new uPlot(options, data[kind], place);
}

function redraw(main) {
  if (main) box.dataset.main = main;
  draw("score", box.dataset.main || box.dataset.score);
  draw("loss", box.dataset.loss);
}

function add(kind, points) {
  for (const [x, y] of points || []) {
    data[kind][0].push(x);
    data[kind][1].push(y);
  }
}

async function whole() {
  if (!box) return;
  const answer = await fetch(`${address}/curves`);
  if (!answer.ok) return;
  const found = await answer.json();
  for (const kind of ["score", "loss"]) {
    data[kind] = [[], []];
    add(kind, found[kind]);
  }
  offset = found.offset;
  redraw(found.main);
}

async function refreshWords() {
  const answer = await fetch(`${address}/words`);
  if (!answer.ok) return;
  swap(words, await answer.text());
  const version = words.firstElementChild.dataset.live;
  const section = document.getElementById("live");
  const image = section.querySelector("img");
  const source = `${address}/live.png?v=${version}`;
  if (version !== "0" && image.getAttribute("src") !== source) {
    image.src = source;
    section.hidden = false;
  }
}

async function take(found) {
  if (found.words) await refreshWords();
  if (box && found.again) await whole();
  else if (box && (found.score?.length || found.loss?.length)) {
    const first = !box.dataset.main && found.main;
    add("score", found.score);
    add("loss", found.loss);
    if (first) redraw(found.main);
    else for (const kind of ["score", "loss"]) charts[kind].setData(data[kind]);
  }
  if (found.over) {
    over = true;
    disconnect();
  }
}

function stream() {
  const source = new EventSource(`${address}/events?offset=${offset}`);
  source.onmessage = (event) => {
    if (event.lastEventId) offset = Number(event.lastEventId);
    take(JSON.parse(event.data));
  };
  return () => source.close();
}

function poll() {
  const timer = setInterval(async () => {
    try {
      const answer = await fetch(`${address}/news?offset=${offset}`);
      if (!answer.ok) return;
      const found = await answer.json();
      offset = found.offset;
      await take(found);
    } catch {
      // The studio is away for a moment; the next turn asks again.
    }
  }, PAUSE);
  return () => clearInterval(timer);
}

// A tab takes one of the few connections of this browser; without a free one, or without locks, it asks now and then.
async function connect(number = 0) {
  if (over || document.hidden || stop) return;
  if (!navigator.locks || number === STREAMS) {
    stop = poll();
    return;
  }
  await navigator.locks.request(`vitrail-stream-${number}`, { ifAvailable: true }, (lock) => {
    if (!lock) return connect(number + 1);
    if (over || document.hidden || stop) return undefined;
    return new Promise((free) => {
      const close = stream();
      stop = () => {
        close();
        free();
      };
    });
  });
}

function disconnect() {
  stop?.();
  stop = null;
}

document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
addEventListener("pagehide", disconnect);
if (box) {
  new ResizeObserver(() => {
    for (const chart of Object.values(charts)) chart.setSize({ width: chart.root.parentElement.clientWidth, height: 240 });
  }).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
}
await whole();
connect();

// The live camera: one picture after the other goes to the model, the next only when the last one is answered.
const live = document.querySelector("[data-live]");
const part = name => live.querySelector(`[data-${name}]`);
const RETRY = 1000;

function start() {
  const video = live.querySelector("video");
  const glow = live.querySelector("canvas");
  const still = document.createElement("canvas");
  const state = { on: false, paused: false, times: [], stream: null };

  const open = async () => {
    if (state.on || state.opening) return;
    state.opening = true;
    try {
      state.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch {
      trouble(live.dataset.refused);
      part("start").hidden = false;
      return;
    } finally {
      state.opening = false;
    }
    if (document.hidden) return close();
    video.srcObject = state.stream;
    await video.play();
    live.querySelector(".screen").style.aspectRatio = `${video.videoWidth} / ${video.videoHeight}`;
    state.on = true;
    state.times = [];
    trouble("");
    part("start").hidden = true;
    usable(true);
    loop();
  };

  const close = () => {
    state.on = false;
    usable(false);
    for (const track of state.stream?.getTracks() ?? []) track.stop();
    video.srcObject = null;
    state.stream = null;
  };

  const loop = async () => {
    if (state.looping) return;
    state.looping = true;
    while (state.on && !state.paused) {
      const began = performance.now();
      try {
        const body = await taken(video, still, 2 * Number(live.dataset.side), 0.85);
        if (!state.on) break;
        const answer = await fetch(live.dataset.frame, { method: "POST", body, headers: { Accept: "application/json" } });
        const told = await answer.json();
        if (!answer.ok) throw new Error(told.sentence);
        if (!state.on || state.paused) break;
        trouble("");
        show(told, glow);
        speed(state.times, began);
      } catch (error) {
        trouble(error instanceof TypeError ? live.dataset.lost : error.message || live.dataset.lost);
        await new Promise(done => setTimeout(done, RETRY));
      }
    }
    state.looping = false;
  };

  part("start").addEventListener("click", open);
  part("pausing").addEventListener("click", () => {
    state.paused = !state.paused;
    part("pausing").textContent = state.paused ? live.dataset.go : live.dataset.pause;
    if (state.paused) video.pause();
    else video.play().then(loop);
  });
  part("glow").addEventListener("change", event => { glow.hidden = !event.target.checked; });
  part("freeze").addEventListener("click", async () => {
    const form = document.querySelector("[data-keep]");
    give(form.querySelector("input[type=file]"), await taken(video, still, 1600, 0.92));
    form.requestSubmit();
  });
  part("teach")?.addEventListener("submit", async event => {
    const file = event.target.querySelector("input[type=file]");
    if (file.files.length) return;
    event.preventDefault();
    give(file, await taken(video, still, 1600, 0.92));
    event.target.requestSubmit();
  });
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  open();
}

// The picture as a JPEG of at most this longest side.
function taken(video, canvas, side, quality) {
  const part = Math.min(1, side / Math.max(video.videoWidth, video.videoHeight));
  canvas.width = Math.max(1, Math.round(video.videoWidth * part));
  canvas.height = Math.max(1, Math.round(video.videoHeight * part));
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise(done => canvas.toBlob(done, "image/jpeg", quality));
}

function usable(on) {
  for (const button of live.querySelectorAll("[data-freeze], [data-pausing], [data-teach] button")) button.disabled = !on;
}

function give(input, blob) {
  const transfer = new DataTransfer();
  transfer.items.add(new File([blob], `camera-${Date.now()}.jpg`, { type: "image/jpeg" }));
  input.files = transfer.files;
}

function show(told, glow) {
  part("said").textContent = told.none ? live.dataset.none : told.bars.length ? told.bars[0][0] : told.text;
  part("bars").replaceChildren(...told.bars.map(bar));
  const novel = part("novel");
  novel.hidden = told.unlike === null;
  if (told.unlike !== null) {
    novel.classList.toggle("now", told.none);
    novel.querySelector("i").style.width = `${100 * told.unlike}%`;
    part("share").textContent = `${(100 * told.unlike).toFixed(1)} %`;
  }
  const drawn = live.querySelector(".drawn");
  drawn.hidden = !told.drawn;
  if (told.drawn) drawn.src = told.drawn;
  paint(told.attention, glow);
}

function bar([label, share], place) {
  const row = document.createElement("div");
  if (!place) row.className = "first";
  const name = document.createElement("dt");
  name.textContent = name.title = label;
  const value = document.createElement("dd");
  const track = document.createElement("span");
  track.className = "bar-track";
  const fill = document.createElement("i");
  fill.style.width = `${100 * share}%`;
  const number = document.createElement("b");
  number.textContent = `${(100 * share).toFixed(1)} %`;
  track.append(fill);
  value.append(track, " ", number);
  row.append(name, value);
  return row;
}

// Warm light where the network looks; the browser enlarges the small map smoothly.
function paint(map, canvas) {
  const context = canvas.getContext("2d");
  if (!map) return context.clearRect(0, 0, canvas.width, canvas.height);
  canvas.width = map.width;
  canvas.height = map.height;
  const pixels = context.createImageData(map.width, map.height);
  const bytes = Uint8Array.from(atob(map.values), sign => sign.charCodeAt(0));
  bytes.forEach((value, i) => pixels.data.set([255, 90 + 0.55 * value, 0.25 * value, 0.85 * value], 4 * i));
  context.putImageData(pixels, 0, 0);
}

function speed(times, began) {
  const now = performance.now();
  times.push(now);
  while (times.length > 12) times.shift();
  if (times.length < 2) return;
  const rate = (1000 * (times.length - 1)) / (now - times[0]);
  part("speed").dataset.value = rate.toFixed(2);
  part("speed").textContent = live.dataset.rate.replace("{rate}", rate.toFixed(1)).replace("{time}", Math.round(now - began));
}

function trouble(text) {
  part("trouble").textContent = text;
  part("trouble").hidden = !text;
}

if (live) {
  if (navigator.mediaDevices?.getUserMedia) start();
  else trouble(live.dataset.refused);
}

// The live part of the page of a server: what the model is, and a place to try it. Without it the page is a reference.
// Whatever a server answers is written as text, never as HTML.

const at = (id) => document.getElementById(id);
const has = (name) => document.body.dataset[name] === "True";
const KEY = `vitrail token ${location.pathname}`; // several servers may stand below one host

function make(tag, { name, text, ...rest } = {}, ...inside) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  for (const [attribute, value] of Object.entries(rest)) made.setAttribute(attribute, value);
  made.append(...inside);
  return made;
}

// Numbers as people read them: 1,234,567 and 0.913
function shown(value) {
  if (typeof value === "number") return value.toLocaleString("en", { maximumFractionDigits: Math.abs(value) < 10 ? 3 : 1 });
  if (value === null || value === undefined || value.length === 0) return "none";
  if (Array.isArray(value)) return value.map(shown).join(value.every(Number.isFinite) ? " – " : ", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

const words = (name) => name.replaceAll("_", " ");

// The token, which may come in the link behind #token= : a browser sends that part to nobody.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, "", location.pathname + location.search);
}
const token = () => at("token")?.value.trim() || "";
const signed = (headers = {}) => (token() ? { ...headers, Authorization: `Bearer ${token()}` } : headers);

// Return what a server answered, or throw the sentence with which it refused.
async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: signed(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer.");
  }
  if (response.ok) return response;
  const refused = await response.json().catch(() => ({}));
  const wait = response.headers.get("Retry-After");
  const error = new Error(`${refused.error || response.statusText || "Refused."}${wait ? ` Try again in ${wait} s.` : ""}`);
  error.status = response.status;
  throw error;
}

function table(rows, caption) {
  const columns = Object.keys(rows[0]);
  const head = make("tr", {}, ...columns.map((one) => make("th", { text: words(one), scope: "col" })));
  const lines = rows.map((row) => make("tr", {}, ...columns.map((one) => make("td", { text: shown(row[one]) }))));
  return make("div", { name: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...lines)));
}

function labels_of(labels) {
  const all = make("ul", { name: "chips", translate: "no" }, ...labels.map((one) => make("li", { text: shown(one) })));
  if (labels.length <= 12) return all;
  return make("details", {}, make("summary", { text: `All ${labels.length} labels` }), all);
}

// What the card says; numbers and words are facts, lists are tables below them.
function show_card(card) {
  const facts = [["task", card.task], ["labels", card.labels?.length], ["SHA-256", card.sha256?.slice(0, 16)]];
  if (card.promise_ms) facts.push(["promise", `an answer within ${shown(card.promise_ms)} ms, or a refusal at once`]);
  const list = make("dl", { name: "facts" });
  for (const [name, value] of facts) {
    if (value !== undefined) list.append(make("div", {}, make("dt", { text: name }), make("dd", { text: shown(value) })));
  }
  at("card").replaceChildren(list);
  if (card.labels?.length) at("card").append(labels_of(card.labels));
  if (card.points?.length) {
    at("card").append(make("h3", { text: "Operating points" }), table(card.points, "Operating points"));
    const first = at("point")?.options[0];
    if (first) at("point").replaceChildren(first, ...card.points.map(({ point }) => make("option", { text: point, value: point })));
  }
  const limits = Object.entries(card.limits || {});
  if (limits.length) {
    const rows = limits.map(([name, value]) => make("div", {}, make("dt", { text: words(name) }), make("dd", { text: shown(value) })));
    at("limits").replaceChildren(make("dl", { name: "facts" }, ...rows));
  }
}

async function load_card() {
  const said = at("token-said");
  if (said && !token()) return;
  try {
    show_card(await (await ask("card")).json());
    if (said) said.textContent = "The server takes this token.";
  } catch (error) {
    (said || at("card")).textContent = error.message;
  }
}

// One request: an image, the point and the deadline as the page has them.
let image = null, asked = null, preview = "";

function address(path) {
  const url = new URL(path, location.href);
  url.hash = "";
  url.search = at("point").value ? new URLSearchParams({ point: at("point").value }) : "";
  return url;
}

function show_curl() {
  const url = String(address("predict")), quoted = /[?&'$ ]/.test(url) ? `'${url.replaceAll("'", "%27")}'` : url;
  const key = document.body.dataset.token === "True" ? ' -H "Authorization: Bearer $VITRAIL_TOKEN"' : "";
  const deadline = at("deadline").valueAsNumber;
  at("curl").textContent = `curl -T photo.jpg${key}${deadline > 0 ? ` -H "X-Deadline-Ms: ${deadline}"` : ""} ${quoted}`;
}

function choose(file) {
  if (!file) return;
  image = file;
  URL.revokeObjectURL(preview);
  preview = URL.createObjectURL(file);
  const picture = make("img", { src: preview, alt: "The image that you chose" });
  picture.onerror = () => picture.replaceWith(make("span", { text: "The browser cannot show this kind of image; the server may read it." }));
  at("shown").replaceChildren(picture);
  at("shown").hidden = false;
  at("invitation").hidden = true;
  at("drop").classList.add("full");
  at("name").textContent = `${file.name} · ${shown(Math.ceil(file.size / 1024))} KB`;
  for (const id of ["again", "explain"]) if (at(id)) at(id).disabled = false;
  predict();
}

async function send(path, accept, show) {
  asked?.abort();
  const mine = (asked = new AbortController());
  const headers = { Accept: accept, "Content-Type": image.type || "application/octet-stream" };
  if (at("deadline").valueAsNumber > 0) headers["X-Deadline-Ms"] = at("deadline").value;
  at("answer").classList.add("waiting");
  const start = performance.now();
  try {
    const response = await ask(address(path), { method: "POST", body: image, headers, signal: mine.signal });
    await show(response, start);
  } catch (error) {
    if (mine.signal.aborted) return;
    at("answer").replaceChildren(make("p", { name: "bad", text: error.status ? `${error.status}: ${error.message}` : error.message }));
    if (error.status === 401) at("token")?.focus();
  }
  if (asked === mine) at("answer").classList.remove("waiting");
}

const predict = () => send("predict", "application/json", async (response, start) => {
  show_answer(await response.json(), performance.now() - start);
});

const explain = () => send("explain", "image/png", async (response) => {
  const url = URL.createObjectURL(await response.blob());
  const picture = make("img", { src: url, alt: "Where the network looked" });
  picture.onload = () => URL.revokeObjectURL(url);
  at("answer").replaceChildren(make("p", { text: "Where the network looked" }), picture);
});

function show_answer(all, seen) {
  const one = all.answers?.[0] || {};
  const parts = one.error ? [make("p", { name: "bad", text: one.error })] : [...summary(one), ...times(one, all, seen)];
  const json = make("pre", { text: JSON.stringify(all, null, 2) });
  at("answer").replaceChildren(...parts, make("details", {}, make("summary", { text: "The whole answer" }), json));
  draw(one);
}

// Labels with probabilities, boxes with confidences, or areas with shares, as bars; else the answer as it is.
function summary(one) {
  const rows = one.top?.map((row) => [row.label, row.probability])
    || one.boxes?.map((row) => [`${row.class} #${row.number}`, row.confidence])
    || one.areas?.map((row) => [row.class, row.share]);
  if (!rows) return [make("pre", { text: JSON.stringify(one, null, 2) })];
  const parts = [];
  if (one.none_of_these) parts.push(make("p", { name: "bad", text: "None of these labels fits this image." }));
  if (!rows.length) parts.push(make("p", { text: "Nothing was found." }));
  if (one.set) parts.push(make("p", { text: `Cannot be ruled out: ${one.set.join(", ") || "no label"}` }));
  parts.push(make("ul", { name: "bars", translate: "no" }, ...rows.slice(0, 12).map(bar)));
  if (rows.length > 12) parts.push(make("p", { name: "soft", text: `and ${rows.length - 12} more` }));
  return parts;
}

function bar([name, share]) {
  const line = make("div", {}, make("span", { text: name }), make("span", { text: Number.isFinite(share) ? `${(100 * share).toFixed(1)} %` : "" }));
  const full = make("i");
  full.style.width = `${Math.min(100, 100 * (share || 0))}%`;
  return make("li", {}, line, make("span", { name: "track", "aria-hidden": "true" }, full));
}

// Where the time went; "other" is what the total has beyond the three.
function times(one, all, seen) {
  const spent = ["queue", "decode", "network"].map((name) => [name, one[`${name}_ms`]]).filter(([, ms]) => Number.isFinite(ms));
  const rest = all.total_ms - spent.reduce((sum, [, ms]) => sum + ms, 0);
  if (rest > 0.05) spent.push(["other", rest]);
  const strip = make("div", { name: "times", "aria-hidden": "true" });
  const legend = make("ul", { name: "legend" });
  for (const [name, ms] of spent) {
    const part = make("i", { name });
    part.style.flex = `${ms} 1 0`;
    strip.append(part);
    legend.append(make("li", {}, make("i", { name, "aria-hidden": "true" }), `${name} ${ms.toFixed(1)} ms`));
  }
  const facts = [one.point && `point ${one.point}`, one.batch && `batch of ${one.batch}`, one.backend].filter(Boolean);
  const total = `${Number.isFinite(all.total_ms) ? `${all.total_ms.toFixed(1)} ms in the server, ` : ""}${seen.toFixed(0)} ms seen from this page`;
  const parts = [strip, legend, make("p", { name: "soft", text: [total, ...facts].join(" · ") })];
  if (all.late) parts.push(make("p", { name: "bad", text: "Late: the answer came after its deadline." }));
  return parts;
}

// Boxes on the picture, in the pixels of the original.
function draw(one) {
  at("shown").querySelector("svg")?.remove();
  if (!one.boxes?.length || !at("shown").querySelector("img")) return;
  const space = "http://www.w3.org/2000/svg", drawing = document.createElementNS(space, "svg");
  drawing.setAttribute("viewBox", `0 0 ${one.width} ${one.height}`);
  drawing.setAttribute("aria-hidden", "true");
  for (const name of ["under", "box"]) {
    for (const { left, top, right, bottom } of one.boxes) {
      const rect = document.createElementNS(space, "rect");
      const place = { x: left, y: top, width: right - left, height: bottom - top, class: name };
      for (const [attribute, value] of Object.entries(place)) rect.setAttribute(attribute, value);
      drawing.append(rect);
    }
  }
  at("shown").append(drawing);
}

function start_trying() {
  const drop = at("drop");
  at("file").onchange = () => choose(at("file").files[0]);
  at("again").onclick = predict;
  if (at("explain")) at("explain").onclick = explain;
  for (const kind of ["dragover", "dragleave", "drop"]) {
    addEventListener(kind, (event) => { // an image beside the field must not replace the page
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") choose(event.dataTransfer.files[0]);
    });
  }
  addEventListener("paste", (event) => choose([...(event.clipboardData?.files || [])].find((one) => one.type.startsWith("image/"))));
  at("point").onchange = at("deadline").oninput = show_curl;
  show_curl();
  if (!navigator.clipboard) return; // only where the connection is encrypted, or on this machine
  at("copy").hidden = false;
  at("copy").onclick = async () => {
    await navigator.clipboard.writeText(at("curl").textContent);
    at("copy").textContent = "Copied";
    setTimeout(() => { at("copy").textContent = "Copy"; }, 2000);
  };
}

if (at("token")) {
  at("token").value = sessionStorage.getItem(KEY) || "";
  at("token").onchange = () => { sessionStorage.setItem(KEY, token()); load_card(); };
}
if (has("predict")) start_trying();
if (has("card")) load_card();

/** Open the address that the link in the bar names. */
function unfold() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named instanceof HTMLDetailsElement) named.open = true;
}

window.addEventListener("hashchange", unfold);
unfold();

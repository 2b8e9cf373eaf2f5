// Drop and upload: folders of any depth, each file once, what cannot be read is named. No part of it is needed to
// send a form; it makes the form live.

const PAGE = 2000; // files of one question to the studio
const AT_ONCE = 3; // connections: browsers have six a host, and thumbnails want some
const SMALL = 1 << 20; // bytes: smaller files travel together
const TOGETHER = 48; // files of one request
const TRIES = 4;
const SHOWN = 60;
const HIDDEN = /(^|\/)(\.[^/]*|__MACOSX|@eaDir|Thumbs\.db|ehthumbs\.db|desktop\.ini)(\/|$)/i;
const PICTURE = /\.(jpe?g|jfif|png|gif|bmp|webp|avif)$/i;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Read every entry of a dropped folder: readEntries tells at most a hundred at a time, until it tells none.
export async function gather(entries, told) {
  const files = [], unreadable = [], waiting = entries.map((entry) => [entry, entry.name]);
  while (waiting.length) {
    const [entry, path] = waiting.pop();
    try {
      if (entry.isDirectory) {
        const reader = entry.createReader();
        for (;;) {
          const some = await new Promise((yes, no) => reader.readEntries(yes, no));
          if (!some.length) break;
          for (const one of some) waiting.push([one, `${path}/${one.name}`]);
        }
      } else {
        const file = await new Promise((yes, no) => entry.file(yes, no));
        files.push({ path, file });
        if (files.length % 50 === 0) told(files.length);
      }
    } catch {
      unreadable.push(path);
    }
  }
  files.sort((a, b) => a.path.localeCompare(b.path, undefined, { numeric: true }));
  return { files, unreadable };
}

// The folder around everything is the name of the set; what is below it are the paths.
export function without_top(files) {
  const tops = new Set(files.map(({ path }) => path.split("/")[0]));
  const deep = files.every(({ path }) => path.split("/").length > 2);
  if (tops.size !== 1 || !deep) {
    const [first] = tops;
    const name = tops.size === 1 ? first.replace(/\.(zip|tar|tar\.gz|tgz)$/i, "") : "";
    return { name: PICTURE.test(name) ? "images" : name || "images", files };
  }
  const [name] = tops;
  return { name, files: files.map(({ path, file }) => ({ path: path.slice(name.length + 1), file })) };
}

// Small files travel together: a request of its own costs each more than its bytes.
function parcels(files) {
  const found = [];
  let small = [];
  for (const one of files) {
    if (one.file.size > SMALL) found.push([one]);
    else if (small.push(one) === TOGETHER) { found.push(small); small = []; }
  }
  if (small.length) found.push(small);
  return found;
}

class Upload {
  constructor(form) {
    this.form = form;
    this.base = form.dataset.base;
    this.into = form.dataset.into || "";
    this.troubles = 0;
    this.find = (name) => form.querySelector(`[data-${name}]`);
    const words = document.querySelector("template[data-words]");
    this.words = Object.fromEntries([...(words?.content.querySelectorAll("[data-word]") || [])].map((one) => [one.dataset.word, one.textContent]));
    const lit = form.closest("[data-drop-class]") || form;
    const zone = "wholePage" in form.dataset ? document.documentElement : lit; // on the first page a folder may be dropped anywhere
    for (const name of ["dragenter", "dragover"]) zone.addEventListener(name, (event) => { event.preventDefault(); lit.classList.add("over"); });
    for (const name of ["dragleave", "drop"]) zone.addEventListener(name, () => lit.classList.remove("over"));
    zone.addEventListener("drop", (event) => { event.preventDefault(); this.dropped(event.dataTransfer); });
    for (const input of form.querySelectorAll("input[type=file]")) input.addEventListener("change", () => this.chosen(input));
    form.addEventListener("submit", (event) => event.preventDefault());
    this.find("retry")?.addEventListener("click", () => { this.open(); this.send(this.files); });
    addEventListener("beforeunload", (event) => { if (this.busy) event.preventDefault(); });
  }

  say(word, values = {}) {
    const text = (this.words[word] || word).replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
    if (this.find("now")) this.find("now").textContent = text;
  }

  trouble(text) {
    this.troubles += 1;
    const list = this.find("trouble");
    if (!list || this.troubles > 200) return;
    const item = document.createElement("li");
    item.textContent = text;
    list.append(item);
  }

  open() {
    this.troubles = 0;
    this.find("trouble")?.replaceChildren();
    if (this.find("panel")) this.find("panel").hidden = false;
    if (this.find("after")) this.find("after").hidden = true;
    this.find("bar")?.removeAttribute("value");
    this.say("reading", { n: 0 });
  }

  async dropped(transfer) {
    if (this.busy) return this.trouble(this.words.busy);
    const entries = [...transfer.items].filter((one) => one.kind === "file").map((one) => one.webkitGetAsEntry?.()).filter(Boolean);
    this.open();
    this.busy = true;
    const found = await gather(entries, (n) => this.say("reading", { n }));
    this.busy = false;
    await this.take(found.files, found.unreadable);
  }

  async chosen(input) {
    if (this.busy) { input.value = ""; return this.trouble(this.words.busy); } // emptied: the same choice later is a change
    const files = [...input.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
    this.open();
    await this.take(files, []);
  }

  async take(found, unreadable) {
    for (const name of unreadable) this.trouble((this.words.unreadable || "{name}").replace("{name}", name));
    const seen = found.filter(({ path }) => !HIDDEN.test(path));
    if (!seen.length) return this.say("nothing");
    const fixed = this.form.dataset.fixed;
    if (fixed) return this.send(seen.map(({ path, file }) => ({ path: `${fixed}/${path.split("/").pop()}`, file })));
    const { name, files } = without_top(seen);
    this.name = name;
    this.preview(files);
    const loose = files.filter(({ path, file }) => !path.includes("/") && PICTURE.test(file.name));
    if (loose.length && loose.length === files.length) return this.ask(files);
    return this.send(files);
  }

  // Single images belong to a class that only the user knows.
  ask(files) {
    this.say("reading", { n: files.length });
    this.find("bar")?.setAttribute("value", "0");
    const ask = this.find("ask"), input = this.find("class");
    ask.hidden = false;
    input.focus();
    const go = () => {
      const word = input.value.trim().replaceAll("/", "-");
      if (!word) return input.focus();
      ask.hidden = true;
      return this.send(files.map(({ path, file }) => ({ path: `${word}/${path}`, file })));
    };
    this.find("go").onclick = go;
    input.onkeydown = (event) => { if (event.key === "Enter") { event.preventDefault(); go(); } };
  }

  // The user's own images at once, before any of them has arrived: classes as columns.
  preview(files) {
    const place = this.find("preview");
    if (!place) return;
    const groups = new Map();
    for (const { path, file } of files) {
      if (!PICTURE.test(path)) continue;
      const name = path.includes("/") ? path.split("/").at(-2) : "";
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(file);
    }
    const each = Math.max(2, Math.floor(SHOWN / Math.max(1, groups.size)));
    place.replaceChildren(...[...groups].slice(0, SHOWN / 2).map(([name, some]) => {
      const column = document.createElement("div"), title = document.createElement("h3"), heap = document.createElement("div");
      title.textContent = `${name} ${some.length.toLocaleString()}`;
      heap.className = "heap";
      for (const file of some.slice(0, each)) {
        const image = document.createElement("img");
        image.alt = "";
        image.decoding = "async";
        image.src = URL.createObjectURL(file);
        image.onload = () => URL.revokeObjectURL(image.src);
        image.onerror = () => image.remove();
        heap.append(image);
      }
      column.append(title, heap);
      return column;
    }));
  }

  async json(address, options) {
    for (let turn = 1; ; turn += 1) {
      try {
        const reply = await fetch(address, { ...options, headers: { Accept: "application/json", ...(options.headers || {}) } });
        const told = await reply.json().catch(() => ({}));
        if (reply.ok) return told;
        throw Object.assign(new Error(told.sentence || `${reply.status}`), { refused: true });
      } catch (error) {
        if (error.refused || turn >= TRIES) throw error;
        await pause(400 * 2 ** turn);
      }
    }
  }

  async start() {
    if (this.into) return;
    const body = new FormData();
    body.set("name", this.name || "images");
    const made = await this.json(`${this.base}new`, { method: "POST", body });
    this.into = made.name;
    history.replaceState(null, "", `?into=${made.path}`); // a reload goes on
  }

  // A file without permission fails here, not as a lost connection.
  async readable(parcel) {
    const tried = await Promise.all(parcel.map((one) => one.file.slice(0, 1).arrayBuffer().then(() => true, () => false)));
    parcel.forEach((one, number) => {
      if (tried[number]) return;
      this.trouble(this.words.unreadable?.replace("{name}", one.path) || one.path);
      if (this.find("retry")) this.find("retry").hidden = false;
    });
    return parcel.filter((_, number) => tried[number]);
  }

  // Send files and return the sentences about those that were refused.
  async post(there, parcel) {
    if (parcel.length === 1) {
      const [{ path, file }] = parcel;
      const address = `${there}/files/${path.split("/").map(encodeURIComponent).join("/")}?modified=${Math.max(0, file.lastModified)}`;
      await this.json(address, { method: "PUT", body: file });
      return [];
    }
    const announced = JSON.stringify(parcel.map(({ path, file }) => [path, file.size, Math.max(0, file.lastModified)]));
    const body = new Blob([announced, "\n", ...parcel.map(({ file }) => file)]);
    const told = await this.json(`${there}/files`, { method: "POST", body, headers: { "Content-Type": "application/octet-stream" } });
    return Object.values(told.refused);
  }

  async send(files) {
    this.files = files;
    this.busy = true;
    if (this.find("retry")) this.find("retry").hidden = true;
    let done = 0, failed = 0, here = 0;
    const all = files.length, bar = this.find("bar");
    const tell = () => { if (bar) { bar.max = all; bar.value = done + failed; } this.say("sending", { done: done.toLocaleString(), all: all.toLocaleString() }); };
    tell();
    try {
      await this.start();
      const there = `${this.base}${encodeURIComponent(this.into)}`;
      for (let from = 0; from < all; from += PAGE) {
        const some = files.slice(from, from + PAGE);
        const told = await this.json(`${there}/missing`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ files: some.map(({ path, file }) => [path, file.size, Math.max(0, file.lastModified)]) }) });
        for (const sentence of Object.values(told.refused)) { this.trouble(sentence); failed += 1; }
        const refused = Object.keys(told.refused).length;
        here += some.length - told.missing.length - refused;
        done += some.length - told.missing.length - refused;
        const queue = parcels(told.missing.map((number) => some[number]));
        const work = async () => {
          for (let parcel = queue.shift(); parcel; parcel = queue.shift()) {
            const readable = await this.readable(parcel);
            failed += parcel.length - readable.length;
            try {
              const refused = readable.length ? await this.post(there, readable) : [];
              for (const sentence of refused) this.trouble(sentence);
              failed += refused.length;
              done += readable.length - refused.length;
            } catch (error) {
              failed += readable.length;
              this.trouble(error.refused ? error.message : (this.words.lost || "{name}").replace("{name}", readable[0].path));
              if (this.find("retry")) this.find("retry").hidden = false;
            }
            tell();
          }
        };
        await Promise.all(Array.from({ length: AT_ONCE }, work));
      }
    } catch (error) {
      this.trouble(error.refused ? error.message : (this.words.lost || "{name}").replace("{name}", this.name || "…"));
      failed += 1;
      if (this.find("retry")) this.find("retry").hidden = false;
    }
    this.busy = false;
    this.end(done, all, here);
  }

  end(done, all, here) {
    const there = `${this.base}${encodeURIComponent(this.into)}`;
    this.form.dispatchEvent(new CustomEvent("arrived", { bubbles: true, detail: { done, all } }));
    this.say(done === all ? "finished" : "partly", { done: done.toLocaleString(), all: all.toLocaleString() });
    if (this.form.dataset.fixed) { if (!this.troubles) location.reload(); return; }
    if (here && here < all && this.find("now")) this.find("now").textContent += ` ${this.words.resumed.replace("{n}", here)}`;
    const link = this.find("open");
    if (link) { link.href = there; link.hidden = !this.into; }
    if (this.find("after")) this.find("after").hidden = !this.into && (this.find("retry")?.hidden ?? true);
    if (!this.troubles && this.into) location.href = there;
  }
}

for (const form of document.querySelectorAll("[data-upload]")) form.upload = new Upload(form);

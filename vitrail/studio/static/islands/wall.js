// The wall of thumbnails: only what is near the window is in the page, whatever the number of images. Pages of 200 are
// fetched by the id before them. Without this island the page shows the first 200, and links to the next.

const TALLEST = 15_000_000; // browsers end near 16.7 million CSS pixels; a taller wall is mapped onto this
const HEAD = 44, GAP = 6, WISH = 150;

const wall = document.getElementById("wall");
const words = Object.fromEntries([...(document.getElementById("wall-words")?.content.querySelectorAll("[data-word]") || [])].map((one) => [one.dataset.word, one.textContent]));

export function toast(text, undo) {
  const place = document.getElementById("toasts"), note = document.createElement("div"), span = document.createElement("span");
  note.className = "toast";
  span.textContent = text;
  note.append(span);
  if (undo) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = words.undo;
    button.onclick = () => { note.remove(); undo(); };
    note.append(button);
  }
  place.replaceChildren(note);
  setTimeout(() => note.remove(), 8000);
}

// Where each row of tiles lies: groups one below the other, each with a title of its own if it has a name.
export function layout(groups, width, wish = WISH) {
  const columns = Math.max(1, Math.floor((width + GAP) / (wish + GAP)));
  const side = (width - GAP * (columns - 1)) / columns, step = side + GAP;
  let top = 0, start = 0;
  const blocks = groups.map(([name, count]) => {
    const head = name || groups.length > 1 ? HEAD : 0, rows = Math.ceil(count / columns);
    const block = { name, count, start, top, head, rows };
    top += head + rows * step;
    start += count;
    return block;
  });
  return { columns, side, step, blocks, height: top, total: start };
}

export function place_of(plan, index) {
  const block = block_of(plan, index), at = index - block.start;
  return { block, row: Math.floor(at / plan.columns), column: at % plan.columns, y: block.top + block.head + Math.floor(at / plan.columns) * plan.step, x: (at % plan.columns) * plan.step };
}

export function block_of(plan, index) {
  let low = 0, high = plan.blocks.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (plan.blocks[middle].start <= index) low = middle; else high = middle - 1;
  }
  return plan.blocks[low];
}

// Indexes of the tiles between two heights.
export function between(plan, from, to) {
  const found = [];
  for (const block of plan.blocks) {
    if (block.top > to || block.top + block.head + block.rows * plan.step < from) continue;
    const first = Math.max(0, Math.floor((from - block.top - block.head) / plan.step));
    const last = Math.min(block.rows - 1, Math.floor((to - block.top - block.head) / plan.step));
    if (last >= first) found.push([block.start + first * plan.columns, Math.min(block.start + block.count, block.start + (last + 1) * plan.columns)]);
  }
  return found;
}

class Wall {
  constructor(element) {
    this.element = element;
    this.base = element.dataset.base;
    this.query = element.dataset.query.replace(/^\?/, "");
    this.tiles = new Map();
    this.heads = new Map();
    this.pages = new Map();
    this.active = 0;
    this.decided = [];
    this.chosen = new Set(); // ids
    this.anchor = null; // the image from which shift chooses
    this.range = []; // what shift chose from there: another shift replaces it
  }

  async begin() {
    this.take(await this.plan_now());
    this.element.replaceChildren();
    this.element.setAttribute("role", "group");
    history.scrollRestoration = "manual";
    addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(() => { if (Math.abs(this.element.clientWidth - this.width) > 1) { const index = this.top_index(); this.measure(); this.reveal(index, true); } }).observe(this.element);
    addEventListener("keydown", (event) => this.key(event));
    this.element.addEventListener("focusin", (event) => { const tile = event.target.closest(".tile"); if (!tile) return; this.before = this.active; this.active = Number(tile.dataset.index); });
    const line = document.getElementById("check-line")?.parentElement; // htmx puts another line in its place
    if (line) new MutationObserver(() => this.checked()).observe(line, { childList: true });
    this.checked();
    const help = document.querySelector("[data-help]");
    help.hidden = false;
    help.onclick = () => document.getElementById("keys").showModal();
    this.choosing();
    document.getElementById("zoom").addEventListener("click", (event) => this.zoomed(event));
    this.measure();
    const at = Number(location.hash.match(/^#at-(\d+)$/)?.[1] || 0);
    if (at) this.reveal(at, true);
    this.draw();
  }

  address(path, more = {}) {
    const query = new URLSearchParams(this.query);
    for (const [key, value] of Object.entries(more)) query.set(key, value);
    return `${this.base}${path}?${query}`;
  }

  async plan_now() {
    const reply = await fetch(this.address("wall.json"));
    if (!reply.ok) throw new Error(`${reply.status}`);
    return reply.json();
  }

  async tiles_of(known, number) {
    const reply = await fetch(this.address("tiles", { after: known.anchors[number] }));
    return reply.ok ? reply.json() : null;
  }

  take(known, pages = new Map()) {
    this.known = known;
    this.pages = pages;
    this.round = (this.round || 0) + 1;
  }

  // After a check or a decision: the same images, with other states, perhaps in another order. Nothing changes on the page
  // until it is known where the image that has the focus is now: a key is never about another image than the one in its frame.
  async refresh(to_wall = false) {
    this.focus_after ||= to_wall;
    const turn = this.asked = (this.asked || 0) + 1, known = await this.plan_now(), pages = new Map();
    const place = await this.place_in(known, pages);
    if (turn !== this.asked) return; // a later one is on its way
    const had = this.focus_after || this.element.contains(document.activeElement) || document.getElementById("zoom").open;
    this.focus_after = false;
    this.take(known, pages);
    this.measure();
    this.active = Math.max(0, Math.min(place, known.total - 1));
    if (had) this.focus(this.active); else this.draw();
  }

  // Where the image that has the focus is in a new list; its pages around there are filled in.
  async place_in(known, pages) {
    for (let turn = 0; turn < 3; turn += 1) {
      const near = Math.min(Math.floor(this.active / known.page), known.anchors.length - 1);
      for (const number of [near, near - 1, near + 1]) {
        if (number < 0 || number >= known.anchors.length) continue;
        if (!pages.has(number)) {
          const tiles = await this.tiles_of(known, number);
          if (tiles) pages.set(number, tiles);
        }
        const name = this.id_of(this.active); // keys may have gone on meanwhile
        if (!name) return this.active;
        for (const [place, tiles] of pages) {
          const at = tiles.findIndex((tile) => tile.id === name);
          if (at >= 0) return place * known.page + at;
        }
      }
    }
    return this.active;
  }

  id_of(index) {
    const page = this.pages.get(Math.floor(index / this.known.page));
    return Array.isArray(page) ? page[index % this.known.page]?.id : undefined;
  }

  // After a decision the next image has the focus at once; the list is asked for again when the keys rest.
  soon() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(async () => {
      if (this.asking) { this.soon(); return; }
      this.asking = true;
      try { await this.refresh(); } catch { /* the studio ended: what is shown stays */ } finally { this.asking = false; }
    }, 250);
  }

  checked() {
    if (this.element.dataset.checked || !document.querySelector("#check-line[data-over]")) return;
    this.element.dataset.checked = "1";
    this.refresh().catch(() => {}); // the images were just deleted, or the studio ended: what is shown stays
  }

  measure() {
    this.width = this.element.clientWidth;
    const narrow = this.width < 520;
    this.plan = layout(this.known.groups, this.width, narrow ? 104 : WISH);
    this.tall = Math.min(this.plan.height, TALLEST);
    this.element.style.height = `${this.tall}px`;
    for (const one of [...this.tiles.values(), ...this.heads.values()]) one.remove();
    this.tiles.clear();
    this.heads.clear();
  }

  // The map between the page's height and the wall's own, which may be taller than a page can be.
  get offset() { return this.element.getBoundingClientRect().top + scrollY; }
  get spare() { return Math.max(1, this.tall - innerHeight); }
  get from() {
    const s = Math.max(0, Math.min(this.spare, scrollY - this.offset));
    return this.plan.height > this.tall ? s * (this.plan.height - innerHeight) / this.spare : s;
  }
  shift() { const s = Math.max(0, Math.min(this.spare, scrollY - this.offset)); return s - this.from; }

  later() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.draw(); });
    clearTimeout(this.idle);
    this.idle = setTimeout(() => { const at = this.top_index(); history.replaceState(history.state, "", at ? `#at-${at}` : location.pathname + location.search); }, 300);
  }

  top_index() {
    const [first] = between(this.plan, this.from, this.from + this.plan.step + HEAD);
    return scrollY > this.offset && first ? first[0] : 0;
  }

  draw() {
    const from = this.from - innerHeight, to = this.from + 2 * innerHeight, shift = this.shift();
    const wanted = new Set(), heads = new Set();
    for (const block of this.plan.blocks) {
      if (!block.head || block.top > to || block.top + HEAD < from) continue;
      heads.add(block.start);
      if (!this.heads.has(block.start)) this.heads.set(block.start, this.head(block));
      this.heads.get(block.start).style.transform = `translateY(${block.top + shift}px)`;
    }
    for (const [start, end] of between(this.plan, from, to)) {
      for (let index = start; index < end; index += 1) {
        wanted.add(index);
        if (!this.tiles.has(index)) this.tiles.set(index, this.blank(index));
        const { x, y } = place_of(this.plan, index);
        this.tiles.get(index).style.transform = `translate(${x}px, ${y + shift}px)`;
        this.fill(index);
      }
    }
    for (const [known, all] of [[this.tiles, wanted], [this.heads, heads]]) {
      for (const [key, element] of known) if (!all.has(key) && element !== document.activeElement) { element.remove(); known.delete(key); }
    }
  }

  head(block) {
    const title = document.createElement("h2"), small = document.createElement("small");
    title.className = "group at";
    small.textContent = ` ${block.count.toLocaleString()}`;
    title.append(block.name || "…", small);
    this.element.append(title);
    return title;
  }

  blank(index) {
    const tile = document.createElement("a");
    tile.className = "tile at";
    tile.dataset.index = index;
    tile.tabIndex = index === this.active ? 0 : -1;
    tile.style.width = tile.style.height = `${this.plan.side}px`;
    const { block } = place_of(this.plan, index);
    const later = [...this.element.querySelectorAll(".tile")].find((one) => Number(one.dataset.index) > index);
    this.element.insertBefore(tile, later || null); // the order of the page is the order of the images, for Tab and readers
    tile.dataset.group = block.name;
    return tile;
  }

  // The tile's own page of the list is fetched once the wall rests: a jump over a million images asks for one page.
  fill(index) {
    const number = Math.floor(index / this.known.page), page = this.pages.get(number), tile = this.tiles.get(index);
    if (Array.isArray(page)) return this.show(tile, page[index % this.known.page]);
    if (page) return undefined;
    this.pages.set(number, "waiting");
    const round = this.round;
    setTimeout(async () => {
      const near = between(this.plan, this.from - innerHeight, this.from + 2 * innerHeight).some(([a, b]) => Math.floor(a / this.known.page) <= number && number <= Math.floor((b - 1) / this.known.page));
      if (!near || round !== this.round) { if (round === this.round) this.pages.delete(number); return; }
      await this.page(number);
      this.draw();
    }, 40);
    return undefined;
  }

  async page(number) {
    const round = this.round, known = this.pages.get(number);
    if (Array.isArray(known)) return known;
    const tiles = await this.tiles_of(this.known, number);
    if (round !== this.round) return [];
    if (!tiles) { this.pages.delete(number); await this.refresh(); return []; }
    this.pages.set(number, tiles);
    return tiles;
  }

  show(tile, one) {
    if (!one) return;
    if (tile.dataset.id === one.id + one.v + one.state + one.label) { this.mark(tile, one); return; }
    tile.dataset.id = one.id + one.v + one.state + one.label;
    tile.className = `tile at ${one.state}`;
    this.mark(tile, one);
    tile.href = this.address("image", { id: one.id });
    tile.title = [one.label, one.id, one.reason].filter(Boolean).join(" · ");
    const address = `${this.base}thumb?id=${encodeURIComponent(one.id)}&v=${one.v}`;
    let image = tile.querySelector("img");
    if (!image) { image = document.createElement("img"); image.decoding = "async"; tile.append(image); }
    image.alt = `${one.label} ${one.id}`.trim();
    if (image.getAttribute("src") !== address) image.src = address;
  }

  reveal(index, top = false) {
    if (!this.known.total) return;
    const { y } = place_of(this.plan, Math.min(index, this.known.total - 1));
    const ratio = this.plan.height > this.tall ? this.spare / (this.plan.height - innerHeight) : 1;
    const bar = document.getElementById("chosen")?.offsetHeight || 0; // it covers the lower edge
    const above = y - HEAD, below = y + this.plan.step - innerHeight + bar * 1.3;
    let wanted = null;
    if (top || above < this.from) wanted = above; else if (below > this.from) wanted = below;
    if (wanted !== null) scrollTo(0, this.offset + Math.max(0, wanted) * ratio);
  }

  focus(index) {
    if (index < 0 || index >= this.known.total) return;
    const before = this.tiles.get(this.active);
    if (before) before.tabIndex = -1;
    this.active = index;
    this.reveal(index);
    this.draw();
    const tile = this.tiles.get(index);
    if (tile) { tile.tabIndex = 0; tile.focus({ preventScroll: true }); }
    if (document.getElementById("zoom").open) this.zoom();
  }

  step(dx, dy) {
    if (dx) return this.focus(this.active + dx);
    const { block, row, column } = place_of(this.plan, this.active);
    let target = block, line = row + dy;
    if (line < 0 || line >= block.rows) {
      target = this.plan.blocks[this.plan.blocks.indexOf(block) + dy];
      if (!target) return undefined;
      line = dy > 0 ? 0 : target.rows - 1;
    }
    return this.focus(Math.min(target.start + target.count - 1, target.start + line * this.plan.columns + column));
  }

  async stretch(dx, dy) {
    this.anchor ??= (await this.current())?.id;
    this.step(dx, dy);
    await this.choose_to(this.active);
  }

  async current() {
    const page = await this.page(Math.floor(this.active / this.known.page));
    return page[this.active % this.known.page];
  }

  // Several images: Ctrl-click or S one by one, shift-click or shift and an arrow from one to another.
  choosing() {
    const pick = document.querySelector("[data-pick]"), bar = document.getElementById("chosen");
    pick.hidden = false;
    pick.onclick = () => pick.setAttribute("aria-pressed", String(pick.getAttribute("aria-pressed") !== "true"));
    this.element.addEventListener("click", (event) => {
      const tile = event.target.closest(".tile"), one = event.ctrlKey || event.metaKey || pick.getAttribute("aria-pressed") === "true";
      if (!tile || !(event.shiftKey || one)) return;
      event.preventDefault();
      const index = Number(tile.dataset.index);
      if (event.shiftKey) this.anchor ??= this.id_of(this.before ?? index); // the click gave the tile the focus already
      this.focus(index);
      if (event.shiftKey) this.choose_to(index); else this.toggle();
    });
    bar.addEventListener("click", (event) => {
      const act = event.target.closest("[data-act]")?.dataset.act;
      if (act === "none") { this.choose_none(); this.focus(this.active); } else if (act === "all") this.choose_all(); else if (act) this.decide(act);
    });
    bar.querySelector("form")?.addEventListener("submit", (event) => {
      event.preventDefault();
      const label = event.target.elements.label.value.trim();
      if (label) this.decide("relabel", label);
    });
  }

  async ids(more) {
    const reply = await fetch(this.address("ids", more), { headers: { Accept: "application/json" } });
    const told = await reply.json().catch(() => ({}));
    if (!reply.ok) { toast(told.sentence || `${reply.status}`); return []; }
    return told;
  }

  async toggle() {
    const one = await this.current();
    if (!one) return;
    this.begin_at(one.id);
    if (!this.chosen.delete(one.id)) this.chosen.add(one.id);
    this.told();
  }

  // Another place to choose from; what was chosen stays.
  begin_at(id) {
    this.anchor = id;
    this.range = [];
  }

  // Choose from the anchor to an image, in place of what shift chose from there before. The last of several quick keys counts.
  async choose_to(index) {
    const turn = this.turn = (this.turn || 0) + 1;
    const page = await this.page(Math.floor(index / this.known.page)), last = page[index % this.known.page];
    if (!last) return;
    this.anchor ??= last.id;
    const ids = await this.ids({ first: this.anchor, last: last.id });
    if (turn !== this.turn) return;
    for (const id of this.range) this.chosen.delete(id);
    if (!ids.length) this.begin_at(null); // the anchor is gone from the list, or they are too many
    this.range = ids.filter((id) => !this.chosen.has(id));
    for (const id of this.range) this.chosen.add(id);
    this.told();
  }

  async choose_all() {
    for (const id of await this.ids({})) this.chosen.add(id);
    this.told();
  }

  choose_none() {
    this.chosen.clear();
    this.turn = (this.turn || 0) + 1; // an answer that is still on its way chooses nothing
    this.begin_at(null);
    this.told();
  }

  told() {
    const bar = document.getElementById("chosen"), n = this.chosen.size.toLocaleString();
    bar.hidden = !this.chosen.size;
    bar.querySelector("[data-count]").textContent = (words.chosen || "{n}").replace("{n}", n);
    this.draw();
  }

  mark(tile, one) {
    const chosen = this.chosen.has(one.id);
    tile.classList.toggle("chosen", chosen);
    if (chosen) tile.setAttribute("aria-describedby", "is-chosen"); else tile.removeAttribute("aria-describedby");
  }

  // One after the other: the journal has the order of the keys.
  post(path, values) {
    const mine = (this.posting || Promise.resolve()).then(() => this.send(path, values));
    this.posting = mine.catch(() => {});
    return mine;
  }

  async send(path, values) {
    const body = new URLSearchParams();
    for (const [key, value] of values) body.append(key, value);
    const reply = await fetch(`${this.base}${path}`, { method: "POST", body, headers: { Accept: "application/json" } });
    const told = await reply.json().catch(() => ({}));
    if (!reply.ok) { toast(told.sentence || `${reply.status}`); return null; }
    return told.numbers;
  }

  async decide(what, value = "") {
    const index = this.active, one = await this.current();
    if (!one) return;
    const several = this.chosen.size && !document.getElementById("zoom").open, ids = several ? [...this.chosen] : [one.id];
    if (!several) this.focus(Math.min(index + 1, this.known.total - 1)); // the next key is about the next image, however slow the answer
    const numbers = await this.post("decide", [["what", what], ...ids.map((id) => ["id", id]), ...(value ? [["value", value]] : [])]);
    if (!numbers) { if (!several) this.focus(index); return; }
    this.decided.push(numbers);
    const about = several ? `${(words.many || "{n}").replace("{n}", ids.length.toLocaleString())} · ` : "";
    toast(about + (words[what] || what).replace("{value}", value), () => this.undo());
    if (several) { this.choose_none(); await this.refresh(true); return; }
    one.state = what === "drop" ? "dropped" : "kept";
    if (what === "relabel") one.label = value;
    this.draw();
    this.soon();
  }

  async undo() {
    const last = this.decided.pop();
    if (!last) { toast(words.none); return; }
    if (await this.post("undo", last.map((number) => ["number", number]))) { toast(words.undone); await this.refresh(true); }
  }

  key(event) {
    const field = event.target.closest("input, textarea, select, [contenteditable]"); // keys are dead in text fields
    const on_wall = this.element.contains(event.target);
    if (on_wall && (event.ctrlKey || event.metaKey) && event.key === "a") { event.preventDefault(); this.choose_all(); return; }
    if (field && event.key === "Escape" && !document.querySelector("dialog[open]")) { field.blur(); this.focus(this.active); event.preventDefault(); return; }
    if (field || event.ctrlKey || event.metaKey || event.altKey) return;
    const zoom = document.getElementById("zoom"), inside = this.element.contains(event.target) || zoom.open || event.target === document.body;
    if (event.key === "?") { document.getElementById("keys").showModal(); event.preventDefault(); return; }
    if (event.key === "Escape" && this.chosen.size && !document.querySelector("dialog[open]")) { this.choose_none(); this.focus(this.active); return; }
    if (!inside || document.getElementById("keys").open) return;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const name = /^[1-9]$/.test(event.key) ? this.known.classes[Number(event.key) - 1] : "";
    const on_tile = event.target.closest(".tile, dialog");
    const sideways = event.key === "ArrowLeft" || event.key === "ArrowRight"; // up and down scroll until a tile has the focus
    if (moves[event.key] && event.shiftKey && on_wall) this.stretch(...moves[event.key]);
    else if (moves[event.key] && (on_tile || sideways)) { this.begin_at(null); this.step(...moves[event.key]); }
    else if (event.key === "z" || event.key === "Z") this.undo();
    else if (!on_tile) return;
    else if (event.key === "s" || event.key === "S") this.toggle();
    else if (event.key === "Home") this.focus(0);
    else if (event.key === "End") this.focus(this.known.total - 1);
    else if (event.key === " ") { if (zoom.open) zoom.close(); else this.zoom(); }
    else if (event.key === "x" || event.key === "X") this.decide("drop");
    else if (event.key === "k" || event.key === "K") this.decide("keep");
    else if (event.key === "l" || event.key === "L") this.like();
    else if (name) this.decide("relabel", name);
    else return;
    event.preventDefault();
  }

  async like() {
    const one = await this.current();
    if (one) location.assign(`${this.base.replace(/\/$/, "")}?like=${encodeURIComponent(one.id)}`);
  }

  async zoom() {
    const dialog = document.getElementById("zoom"), one = await this.current();
    if (!one) return;
    dialog.querySelector("img").src = `${this.base}view?id=${encodeURIComponent(one.id)}`;
    dialog.querySelector("img").alt = `${one.label} ${one.id}`.trim();
    dialog.querySelector("[data-label]").textContent = one.label;
    dialog.querySelector("[data-name]").textContent = one.id;
    dialog.querySelector("[data-reason]").textContent = one.state === "kept" ? "" : one.reason;
    dialog.querySelector("[data-open]").href = this.address("image", { id: one.id });
    dialog.querySelector("[data-like]").href = `${this.base.replace(/\/$/, "")}?like=${encodeURIComponent(one.id)}`;
    if (!dialog.open) dialog.showModal();
  }

  zoomed(event) {
    const act = event.target.closest("[data-act]")?.dataset.act, dialog = document.getElementById("zoom");
    if (act === "close" || event.target === dialog) dialog.close();
    else if (act === "before") this.focus(this.active - 1);
    else if (act === "behind") this.focus(this.active + 1);
    else if (act) this.decide(act);
  }
}

if (wall) {
  const shown = new Wall(wall);
  wall.wall = shown;
  shown.begin().catch(() => {}); // the studio does not answer: the server's first page stays as it is
}

// The attention of a picture: sliders for layer and head; a patch is chosen by pointer, by arrow keys, or is a token.
const viewer = document.querySelector("[data-attention]");

class Attention {
  constructor(viewer, data, picture) {
    this.words = viewer.dataset;
    this.data = data;
    this.picture = picture;
    this.weights = data.layers.map(layer => Uint8Array.from(atob(layer.data), sign => sign.charCodeAt(0)));
    this.query = data.prefix.length ? { token: 0 } : { y: 0.5, x: 0.5 };
    this.kept = false;
    this.canvas = document.createElement("canvas");
    this.pen = this.canvas.getContext("2d");
    this.panel = document.querySelector(".sliders");
    this.layer = this.panel.querySelector("#layer");
    this.head = this.panel.querySelector("#head");
    this.prepare(viewer);
    this.listen();
    this.draw();
  }

  prepare(viewer) {
    const longest = Math.max(this.picture.naturalWidth, this.picture.naturalHeight);
    const scale = Math.max(1, Math.min(1024, longest * 8) / longest);
    this.canvas.width = Math.round(this.picture.naturalWidth * scale);
    this.canvas.height = Math.round(this.picture.naturalHeight * scale);
    this.canvas.tabIndex = 0;
    this.canvas.translate = false; // its label holds the names of tokens
    this.canvas.setAttribute("role", "img");
    viewer.querySelector(".still").replaceWith(this.canvas);
    const asked = new URLSearchParams(location.search);
    this.layer.max = this.data.layers.length;
    this.layer.value = asked.get("layer") ?? this.data.layers.length;
    this.head.max = this.current().heads;
    this.head.value = asked.get("head") ?? 0;
    const tokens = this.panel.querySelector("[data-tokens]");
    for (const [token, name] of this.data.prefix.entries()) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "quiet small";
      button.textContent = name;
      button.addEventListener("click", () => { this.query = { token }; this.kept = true; this.draw(); });
      tokens.append(button);
    }
    this.panel.hidden = false;
  }

  listen() {
    for (const slider of [this.layer, this.head]) {
      slider.addEventListener("input", () => this.draw());
      slider.addEventListener("change", () => this.remember());
    }
    this.canvas.addEventListener("pointermove", event => { if (!this.kept) this.point(event); });
    this.canvas.addEventListener("click", event => { this.kept = !this.kept; if (this.kept) this.point(event); });
    this.canvas.addEventListener("keydown", event => this.move(event));
  }

  current() { return this.data.layers[this.layer.value - 1]; }

  remember() {
    const url = new URL(location.href);
    url.searchParams.set("layer", this.layer.value);
    url.searchParams.set("head", this.head.value);
    history.replaceState(history.state, "", url);
  }

  move(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const { rows, cols } = this.current();
    const at = "token" in this.query ? { y: 0.5, x: 0.5 } : this.query;
    const keep = value => Math.min(0.9999, Math.max(0, value));
    this.query = { y: keep(at.y + step[0] / rows), x: keep(at.x + step[1] / cols) };
    this.kept = true;
    this.draw();
  }

  point(event) {
    const [top, left, bottom, right] = this.data.box, area = this.canvas.getBoundingClientRect();
    const y = ((event.clientY - area.top) / area.height - top) / (bottom - top);
    const x = ((event.clientX - area.left) / area.width - left) / (right - left);
    if (x >= 0 && x < 1 && y >= 0 && y < 1) { this.query = { y, x }; this.draw(); }
  }

  place(layer) {
    if ("token" in this.query) return null;
    const within = (share, count) => Math.min(count - 1, Math.floor(share * count));
    return [within(this.query.y, layer.rows), within(this.query.x, layer.cols)];
  }

  row(layer, place, head) {
    const prefix = this.data.prefix.length, cells = layer.rows * layer.cols, sum = new Float32Array(cells);
    const query = place ? prefix + place[0] * layer.cols + place[1] : this.query.token;
    const weights = this.weights[this.layer.value - 1];
    for (let h = 0; h < layer.heads; h++) {
      if (head && h !== head - 1) continue;
      const scale = layer.tops[h][query] / 255, from = (h * (prefix + cells) + query) * cells;
      for (let cell = 0; cell < cells; cell++) sum[cell] += weights[from + cell] * scale / (head ? 1 : layer.heads);
    }
    return sum;
  }

  draw() {
    const layer = this.current();
    this.head.max = layer.heads;
    const head = +this.head.value, place = this.place(layer), sum = this.row(layer, place, head);
    const top = sum.reduce((most, one) => Math.max(most, one), 0);
    this.paint(layer, sum, top, place);
    const now = name => this.panel.querySelector(`[data-now=${name}]`);
    now("layer").textContent = `${this.layer.value} / ${this.layer.max}`;
    now("head").textContent = head ? `${head} / ${layer.heads}` : this.words.mean;
    const where = place ? `${this.words.patch} ${place[0] + 1}, ${place[1] + 1}` : `${this.words.token} ${this.data.prefix[this.query.token]}`;
    const told = `${where} · ${this.words.largest}: ${top.toFixed(1)} %`;
    now("patch").textContent = told;
    this.canvas.setAttribute("aria-label", told);
    for (const [token, button] of [...this.panel.querySelectorAll("[data-tokens] button")].entries())
      button.setAttribute("aria-pressed", this.query.token === token);
  }

  paint(layer, sum, top, place) {
    const { pen, canvas: { width, height }, data: { box: [t, l, b, r], colours } } = this;
    pen.imageSmoothingEnabled = this.picture.naturalWidth > 256;
    pen.filter = "grayscale(1)";
    pen.drawImage(this.picture, 0, 0, width, height);
    pen.filter = "none";
    const down = (b - t) * height / layer.rows, across = (r - l) * width / layer.cols;
    for (let cell = 0; cell < sum.length; cell++) {
      const [red, green, blue] = colours[top > 0 ? Math.round(sum[cell] / top * 255) : 0];
      pen.fillStyle = `rgba(${red},${green},${blue},.62)`;
      const y = t * height + Math.floor(cell / layer.cols) * down, x = l * width + cell % layer.cols * across;
      pen.fillRect(Math.round(x), Math.round(y), Math.round(x + across) - Math.round(x), Math.round(y + down) - Math.round(y));
    }
    if (!place) return;
    pen.lineWidth = Math.max(2, width / 220);
    pen.strokeStyle = "#fff";
    pen.strokeRect(l * width + place[1] * across, t * height + place[0] * down, across, down);
  }
}

if (viewer) {
  const picture = new Image();
  picture.src = viewer.dataset.picture;
  const answered = await fetch(viewer.dataset.attention);
  if (answered.ok) {
    const data = await answered.json();
    await picture.decode();
    new Attention(viewer, data, picture);
    viewer.classList.add("ready");
  }
}

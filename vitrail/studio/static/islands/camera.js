// The live camera: one frame at a time goes to the model; the picture glows where the network looks.
const place = document.querySelector("[data-live]");

class Camera {
  constructor(place) {
    this.place = place;
    this.words = Object.fromEntries([...place.querySelectorAll("[data-word]")].map(one => [one.dataset.word, one.textContent]));
    this.canvas = place.querySelector("canvas");
    this.pen = this.canvas.getContext("2d");
    this.video = document.createElement("video");
    this.video.playsInline = this.video.muted = true;
    this.frame = document.createElement("canvas");
    this.mask = document.createElement("canvas");
    this.lit = document.createElement("canvas");
    this.side = 384;
    this.times = [];
    this.answers = 0;
    this.find("start").addEventListener("click", () => this.open());
    this.find("pause").addEventListener("click", () => this.pause());
    this.find("keep").addEventListener("submit", event => this.keep(event));
    this.find("add")?.addEventListener("submit", event => this.add(event));
    document.addEventListener("visibilitychange", () => this.hide());
    addEventListener("pagehide", () => this.close());
    if (!navigator.mediaDevices?.getUserMedia) {
      this.find("start").disabled = true;
      this.tell(isSecureContext ? "refused" : "insecure");
    }
  }

  find(name) { return this.place.querySelector(`[data-${name}]`); }

  tell(word) {
    const line = this.find("trouble");
    line.hidden = !word;
    line.textContent = word ? this.words[word] ?? word : "";
  }

  async open() {
    try {
      const wanted = { facingMode: "environment", width: { ideal: 1280 } };
      this.video.srcObject = await navigator.mediaDevices.getUserMedia({ video: wanted });
      await this.video.play();
    } catch {
      return this.tell("refused");
    }
    this.tell("");
    this.canvas.width = this.video.videoWidth;
    this.canvas.height = this.video.videoHeight;
    this.find("start").hidden = true;
    this.find("pause").hidden = false;
    this.find("status").textContent = this.words.running;
    this.place.dataset.state = "running";
    this.run();
  }

  close() {
    for (const track of this.video.srcObject?.getTracks() ?? []) track.stop();
    this.video.srcObject = null;
  }

  hide() {
    if (document.hidden && this.video.srcObject) { this.close(); this.away = true; }
    else if (!document.hidden && this.away) { this.away = false; if (!this.paused) this.open(); }
  }

  pause() {
    this.paused = !this.paused;
    this.find("pause").textContent = this.paused ? this.words.resume : this.words.pause;
    if (this.paused) this.video.pause();
    else if (this.video.srcObject) this.video.play().then(() => this.run());
    else this.open();
  }

  get live() { return Boolean(this.video.srcObject) && !this.paused; }

  run() {
    if (!this.asking) this.ask();
    if (this.drawing) return;
    this.drawing = true;
    const draw = () => {
      if (!this.live) { this.drawing = false; return; }
      this.draw();
      requestAnimationFrame(draw);
    };
    requestAnimationFrame(draw);
  }

  // The next frame is sent when the last one is answered: nothing queues up, so the answer is always of now.
  async ask() {
    this.asking = true;
    while (this.live) {
      const began = performance.now();
      try {
        const reply = await fetch(this.place.dataset.frame, { method: "POST", body: await this.snap(this.side, 0.85) });
        const answer = await reply.json();
        if (!reply.ok) throw new Error(answer.sentence);
        this.show(answer, performance.now() - began);
      } catch (error) {
        this.tell(error instanceof TypeError ? "failed" : error.message);
        await new Promise(resolve => setTimeout(resolve, 1000));
      }
    }
    this.asking = false;
  }

  snap(side, quality) {
    const scale = Math.min(1, side / Math.max(this.video.videoWidth, this.video.videoHeight));
    this.frame.width = Math.round(this.video.videoWidth * scale);
    this.frame.height = Math.round(this.video.videoHeight * scale);
    this.frame.getContext("2d").drawImage(this.video, 0, 0, this.frame.width, this.frame.height);
    return new Promise(resolve => this.frame.toBlob(resolve, "image/jpeg", quality));
  }

  show(answer, took) {
    this.side = answer.side;
    this.find("answer").hidden = false;
    this.tell(answer.looked || answer.drawn ? "" : "blind");
    this.looked(answer.looked);
    if (answer.drawn) this.drawn(answer.drawn);
    const bars = answer.bars ?? [];
    const none = answer.unlike == null ? [] : [[this.words.none, answer.unlike]];
    this.find("said").textContent = answer.novel ? this.words.none : bars[0]?.[0] ?? answer.text;
    this.bars([...none, ...bars], answer);
    this.answers += 1;
    this.place.dataset.answers = this.answers;
    this.times = [...this.times.slice(-9), took];
    const mean = this.times.reduce((sum, one) => sum + one, 0) / this.times.length;
    const speed = this.words.speed.replace("{rate}", (1000 / mean).toFixed(1)).replace("{ms}", mean.toFixed(0));
    this.find("speed").textContent = speed;
  }

  bars(rows, answer) {
    const list = this.find("bars");
    while (list.children.length > rows.length) list.lastChild.remove();
    while (list.children.length < rows.length) {
      const line = document.createElement("div");
      line.innerHTML = '<dt></dt><dd><span class="bar-track"><i></i></span> <b></b></dd>';
      list.append(line);
    }
    const best = answer.novel || answer.unlike == null ? 0 : 1;
    for (const [at, [label, share]] of rows.entries()) {
      const line = list.children[at];
      line.className = at === best ? "first" : "";
      line.classList.toggle("none", answer.unlike != null && at === 0);
      line.querySelector("dt").textContent = line.querySelector("dt").title = label;
      line.querySelector("i").style.width = `${(100 * share).toFixed(1)}%`;
      line.querySelector("b").textContent = `${(100 * share).toFixed(1)} %`;
    }
  }

  looked(looked) {
    this.box = looked?.box;
    if (!looked) return;
    const given = Uint8Array.from(atob(looked.data), sign => sign.charCodeAt(0));
    const same = this.weights?.length === given.length;
    this.target = given;
    if (!same) this.weights = Float32Array.from(given);
    this.mask.width = looked.cols;
    this.mask.height = looked.rows;
  }

  async drawn(data) {
    const picture = new Image();
    picture.src = `data:image/jpeg;base64,${data}`;
    await picture.decode();
    this.picture = picture;
  }

  draw() {
    const { width, height } = this.canvas;
    this.pen.drawImage(this.picture ?? this.video, 0, 0, width, height);
    if (!this.box || !this.find("glow").checked) return;
    this.light();
    this.pen.fillStyle = "rgb(6 10 24 / .62)";
    this.pen.fillRect(0, 0, width, height);
    this.pen.drawImage(this.lit, 0, 0);
  }

  // The bright picture where the network looks, warmed with gold; weights glide from answer to answer.
  light() {
    const { width, height } = this.canvas;
    const pixels = new ImageData(this.mask.width, this.mask.height);
    for (let i = 0; i < this.weights.length; i += 1) {
      this.weights[i] += (this.target[i] - this.weights[i]) * 0.3;
      pixels.data.set([255, 190, 40, 255 * Math.sqrt(this.weights[i] / 255)], 4 * i);
    }
    this.mask.getContext("2d").putImageData(pixels, 0, 0);
    if (this.lit.width !== width || this.lit.height !== height) Object.assign(this.lit, { width, height });
    const [top, left, bottom, right] = this.box, pen = this.lit.getContext("2d");
    const area = [left * width, top * height, (right - left) * width, (bottom - top) * height];
    pen.globalCompositeOperation = "copy";
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.mask, ...area);
    pen.globalCompositeOperation = "source-in";
    pen.drawImage(this.video, 0, 0, width, height);
    pen.globalCompositeOperation = "soft-light";
    pen.drawImage(this.mask, ...area);
    pen.globalCompositeOperation = "source-over";
  }

  async keep(event) {
    event.preventDefault();
    const form = event.target, blob = await this.snap(1920, 0.92), transfer = new DataTransfer();
    transfer.items.add(new File([blob], `camera-${Date.now()}.jpg`, { type: "image/jpeg" }));
    form.querySelector("input[type=file]").files = transfer.files;
    this.close();
    form.submit();
  }

  async add(event) {
    event.preventDefault();
    const label = new FormData(event.target).get("class"), now = Date.now();
    const path = [label, `camera-${now}.jpg`].map(encodeURIComponent).join("/");
    const body = await this.snap(1920, 0.92);
    const reply = await fetch(`${this.place.dataset.files}${path}?modified=${now}`, { method: "PUT", body });
    this.find("status").textContent = reply.ok ? `${this.words.added} ${label}` : (await reply.json()).sentence;
  }
}

if (place) new Camera(place);

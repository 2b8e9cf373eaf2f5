// The live camera: one frame at a time goes to the model; the picture glows where the network looks.
const place = document.querySelector("[data-live]");

class Camera {
  constructor(place) {
    this.place = place;
    this.words = Object.fromEntries([...place.querySelectorAll("[data-word]")].map(one => [one.dataset.word, one.textContent]));
    this.glow = place.querySelector("canvas");
    this.video = place.querySelector("video");
    this.frame = document.createElement("canvas");
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
    this.place.querySelector(".screen").style.aspectRatio = `${this.video.videoWidth} / ${this.video.videoHeight}`;
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

  run() { if (!this.asking) this.ask(); }

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

  // A dark veil over the picture that opens, warmed with gold, where the network looks: a few pixels, which the browser
  // stretches over the part of the picture that the network saw. Weights glide from answer to answer.
  looked(looked) {
    this.glow.hidden = !looked || !this.find("glow").checked;
    if (!looked) return;
    const given = Uint8Array.from(atob(looked.data), sign => sign.charCodeAt(0));
    if (this.weights?.length !== given.length) this.weights = Float32Array.from(given);
    const pixels = new ImageData(looked.cols, looked.rows);
    for (let i = 0; i < given.length; i += 1) {
      this.weights[i] += (given[i] - this.weights[i]) * 0.6;
      const light = Math.sqrt(this.weights[i] / 255);
      pixels.data.set(light > 0.5 ? [255, 190, 40, 90 * (2 * light - 1)] : [6, 10, 24, 170 * (1 - 2 * light)], 4 * i);
    }
    Object.assign(this.glow, { width: looked.cols, height: looked.rows });
    this.glow.getContext("2d").putImageData(pixels, 0, 0);
    const [top, left, bottom, right] = looked.box.map(share => 100 * share);
    Object.assign(this.glow.style, { top: `${top}%`, left: `${left}%`, height: `${bottom - top}%`, width: `${right - left}%` });
  }

  drawn(data) {
    const picture = this.place.querySelector(".drawn");
    picture.hidden = false;
    picture.src = `data:image/jpeg;base64,${data}`;
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

// src/panel.ts
var percent = (probability) => `${(100 * probability).toFixed(probability < 0.1 ? 1 : 0)} %`;
function shown(token) {
  return /^(\[[A-Z]+\]|<[^<>]+>)$/.test(token) ? "\xB7" : token.replace(/[Ġ▁]/g, " ").replace(/Ċ/g, "\u21B5").replace(/\n/g, "\u21B5");
}
var Panel = class {
  constructor(hasFrames, title, steps, onDetail, holes = /* @__PURE__ */ new Set(), onHole = () => {
  }) {
    this.steps = steps;
    this.onDetail = onDetail;
    this.holes = holes;
    this.onHole = onHole;
    let heading = document.createElement("h2");
    heading.textContent = title, this.slider.type = "range", this.slider.className = "frame", this.slider.min = "0", this.slider.max = "0", this.slider.setAttribute("aria-label", `Step of ${title}`), this.slider.addEventListener("input", () => this.show()), this.play.type = "button", this.play.textContent = "Play", this.play.addEventListener("click", () => this.timer ? this.stop() : this.start());
    let copy = document.createElement("button");
    copy.type = "button", copy.textContent = "Copy text", copy.addEventListener("click", () => {
      navigator.clipboard?.writeText(this.sample?.text ?? "");
    });
    let controls = document.createElement("div");
    controls.className = "row", this.time.className = "time", hasFrames && controls.append(this.play, this.slider, this.time), controls.append(copy), this.text.className = "text", this.grid.setAttribute("aria-label", `Tokens of ${title}`), this.root.append(heading, this.text, controls, this.grid);
  }
  root = document.createElement("section");
  frames = [];
  grid = document.createElement("ol");
  slider = document.createElement("input");
  time = document.createElement("span");
  text = document.createElement("p");
  play = document.createElement("button");
  sample = null;
  timer = 0;
  /** Tokens of the finished sample. */
  get tokens() {
    return this.sample?.tokens ?? null;
  }
  add(frame) {
    this.frames.push(frame), this.slider.max = String(this.frames.length - 1), this.slider.value = this.slider.max, this.show();
  }
  finish(sample) {
    this.sample = sample, this.text.textContent = sample.text, this.slider.max = String(this.frames.length), this.slider.value = this.slider.max, this.show();
  }
  redraw() {
    this.show();
  }
  start() {
    this.stop(), this.slider.value === this.slider.max && (this.slider.value = "0"), this.play.textContent = "Pause";
    let pause = Math.max(60, Math.min(700, 4e3 / (this.frames.length + 1)));
    this.timer = window.setInterval(() => {
      if (this.slider.value === this.slider.max) return this.stop();
      this.slider.value = String(Number(this.slider.value) + 1), this.show();
    }, pause), this.show();
  }
  stop() {
    window.clearInterval(this.timer), this.timer = 0, this.play.textContent = "Play";
  }
  /** The likeliest tokens of each position at a step; the sample's tokens after the last one. */
  positions(at) {
    let last = this.frames.at(-1)?.positions;
    if (at < this.frames.length || !this.sample) return this.frames[at]?.positions ?? [];
    let { tokens, pieces } = this.sample;
    return tokens.map((id, i) => {
      let known = last?.[i] ?? [];
      return [known.find((likely) => likely.id === id) ?? { id, token: pieces[i] ?? "", probability: 1 }, ...known.filter((likely) => likely.id !== id)];
    });
  }
  show() {
    let at = Number(this.slider.value), frame = this.frames[at];
    this.time.textContent = frame ? `step ${at + 1} of ${this.steps}, \u03C4 = ${frame.tau.toFixed(2)}` : `after ${this.steps} ${this.steps === 1 ? "step" : "steps"}`;
    let open = this.sample && new Set(this.sample.open), positions = this.positions(at);
    for (; this.grid.children.length < positions.length; ) this.grid.append(this.cell(this.grid.children.length));
    for (; this.grid.children.length > positions.length; ) this.grid.lastChild.remove();
    positions.forEach((likely, i) => {
      let button = this.grid.children[i].firstChild, [first] = likely;
      if (!first) return;
      let word = shown(first.token), given = open !== null && !open.has(i);
      button.classList.toggle("given", given), button.classList.toggle("quiet", word === "\xB7"), button.classList.toggle("hole", this.holes.has(i)), button.style.setProperty("--sure", String(given ? 1 : first.probability)), button.children[0].textContent = word === "" ? " " : word;
      let top = likely.slice(0, 3).map((one) => `${shown(one.token).trim() || "\u2423"} ${percent(one.probability)}`);
      button.children[1].textContent = given ? "given" : top.join(`
`);
      let state = given ? "given" : this.holes.has(i) ? "hole" : percent(first.probability);
      button.setAttribute("aria-label", `${i + 1}: ${word}, ${state}`), button.setAttribute("aria-pressed", String(this.holes.has(i)));
    });
  }
  cell(position) {
    let item = document.createElement("li"), button = document.createElement("button");
    button.type = "button", button.className = "token";
    let word = document.createElement("span"), top = document.createElement("span");
    return top.className = "top", top.setAttribute("aria-hidden", "true"), button.append(word, top), button.addEventListener("click", () => this.sample && this.onHole(this, position)), button.addEventListener("focus", () => this.onDetail(`Position ${position + 1}: ${top.textContent?.split(`
`).join(", ")}`)), item.append(button), item;
  }
};

// src/trace.ts
var samples = JSON.parse(document.getElementById("trace").textContent), detail = document.getElementById("detail"), panels = samples.map((sample) => {
  let title = `${sample.model}, ${sample.steps} ${sample.steps === 1 ? "step" : "steps"}`, panel = new Panel(!0, title, sample.steps, (text) => detail.textContent = text);
  sample.trace.forEach((frame) => panel.add(frame));
  let last = sample.trace.at(-1)?.positions ?? [], pieces = sample.tokens.map((id, i) => last[i]?.find((likely) => likely.id === id)?.token ?? "");
  return panel.finish({ ...sample, pieces, open: sample.condition?.open ?? sample.tokens.map((_, i) => i) }), panel;
});
document.getElementById("panels").replaceChildren(...panels.map((panel) => panel.root));
document.getElementById("play").addEventListener("click", () => panels.forEach((panel) => panel.start()));

import type { Frame, Likely, Sample } from "./server.js";

const percent = (probability: number) => `${(100 * probability).toFixed(probability < 0.1 ? 1 : 0)} %`;

/** The spelling of a token for people; special tokens are dots. */
function shown(token: string): string {
  if (/^(\[[A-Z]+\]|<[^<>]+>)$/.test(token)) return "·";
  return token.replace(/[Ġ▁]/g, " ").replace(/Ċ/g, "↵").replace(/\n/g, "↵");
}

/** The frames of one sample: a grid of positions, a slider over steps, the text. */
export class Panel {
  readonly root = document.createElement("section");
  private readonly frames: Frame[] = [];
  private readonly grid = document.createElement("ol");
  private readonly slider = document.createElement("input");
  private readonly time = document.createElement("span");
  private readonly text = document.createElement("p");
  private readonly play = document.createElement("button");
  private sample: Sample | null = null;
  private timer = 0;

  constructor(
    hasFrames: boolean,
    title: string,
    private readonly steps: number,
    private readonly onDetail: (text: string) => void,
    /** Positions that are holes; shared with the page. */
    private readonly holes: ReadonlySet<number> = new Set(),
    private readonly onHole: (panel: Panel, position: number) => void = () => {},
  ) {
    const heading = document.createElement("h2");
    heading.textContent = title;
    this.slider.type = "range";
    this.slider.className = "frame";
    this.slider.min = "0";
    this.slider.max = "0";
    this.slider.setAttribute("aria-label", `Step of ${title}`);
    this.slider.addEventListener("input", () => this.show());
    this.play.type = "button";
    this.play.textContent = "Play";
    this.play.addEventListener("click", () => (this.timer ? this.stop() : this.start()));
    const copy = document.createElement("button");
    copy.type = "button";
    copy.textContent = "Copy text";
    copy.addEventListener("click", () => void navigator.clipboard?.writeText(this.sample?.text ?? ""));
    const controls = document.createElement("div");
    controls.className = "row";
    this.time.className = "time";
    if (hasFrames) controls.append(this.play, this.slider, this.time);
    controls.append(copy);
    this.text.className = "text";
    this.grid.setAttribute("aria-label", `Tokens of ${title}`);
    this.root.append(heading, this.text, controls, this.grid);
  }

  /** Tokens of the finished sample. */
  get tokens(): number[] | null {
    return this.sample?.tokens ?? null;
  }

  add(frame: Frame): void {
    this.frames.push(frame);
    this.slider.max = String(this.frames.length - 1);
    this.slider.value = this.slider.max;
    this.show();
  }

  finish(sample: Sample): void {
    this.sample = sample;
    this.text.textContent = sample.text;
    this.slider.max = String(this.frames.length);
    this.slider.value = this.slider.max;
    this.show();
  }

  redraw(): void {
    this.show();
  }

  start(): void {
    this.stop();
    if (this.slider.value === this.slider.max) this.slider.value = "0";
    this.play.textContent = "Pause";
    const pause = Math.max(60, Math.min(700, 4000 / (this.frames.length + 1)));
    this.timer = window.setInterval(() => {
      if (this.slider.value === this.slider.max) return this.stop();
      this.slider.value = String(Number(this.slider.value) + 1);
      this.show();
    }, pause);
    this.show();
  }

  private stop(): void {
    window.clearInterval(this.timer);
    this.timer = 0;
    this.play.textContent = "Play";
  }

  /** The likeliest tokens of each position at a step; the sample's tokens after the last one. */
  private positions(at: number): Likely[][] {
    const last = this.frames.at(-1)?.positions;
    if (at < this.frames.length || !this.sample) return this.frames[at]?.positions ?? [];
    const { tokens, pieces } = this.sample;
    return tokens.map((id, i) => {
      const known = last?.[i] ?? [];
      const own = known.find((likely) => likely.id === id) ?? { id, token: pieces[i] ?? "", probability: 1 };
      return [own, ...known.filter((likely) => likely.id !== id)];
    });
  }

  private show(): void {
    const at = Number(this.slider.value);
    const frame = this.frames[at];
    this.time.textContent = frame
      ? `step ${at + 1} of ${this.steps}, τ = ${frame.tau.toFixed(2)}`
      : `after ${this.steps} ${this.steps === 1 ? "step" : "steps"}`;
    const open = this.sample && new Set(this.sample.open);
    const positions = this.positions(at);
    while (this.grid.children.length < positions.length) this.grid.append(this.cell(this.grid.children.length));
    while (this.grid.children.length > positions.length) this.grid.lastChild!.remove();
    positions.forEach((likely, i) => {
      const button = this.grid.children[i]!.firstChild as HTMLButtonElement;
      const [first] = likely;
      if (!first) return;
      const word = shown(first.token);
      const given = open !== null && !open.has(i);
      button.classList.toggle("given", given);
      button.classList.toggle("quiet", word === "·");
      button.classList.toggle("hole", this.holes.has(i));
      button.style.setProperty("--sure", String(given ? 1 : first.probability));
      (button.children[0] as HTMLElement).textContent = word === "" ? " " : word;
      const top = likely.slice(0, 3).map((one) => `${shown(one.token).trim() || "␣"} ${percent(one.probability)}`);
      (button.children[1] as HTMLElement).textContent = given ? "given" : top.join("\n");
      const state = given ? "given" : this.holes.has(i) ? "hole" : percent(first.probability);
      button.setAttribute("aria-label", `${i + 1}: ${word}, ${state}`);
      button.setAttribute("aria-pressed", String(this.holes.has(i)));
    });
  }

  private cell(position: number): HTMLLIElement {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "token";
    const word = document.createElement("span");
    const top = document.createElement("span");
    top.className = "top";
    top.setAttribute("aria-hidden", "true");
    button.append(word, top);
    button.addEventListener("click", () => this.sample && this.onHole(this, position));
    button.addEventListener("focus", () => this.onDetail(`Position ${position + 1}: ${top.textContent?.split("\n").join(", ")}`));
    item.append(button);
    return item;
  }
}

// src/panel.ts
var percent = (probability) => `${(100 * probability).toFixed(probability < 0.1 ? 1 : 0)} %`;
function shown(token) {
  return /^(\[[A-Z]+\]|<[^<>]+>)$/.test(token) ? "\xB7" : token.replace(/[Ġ▁]/g, " ").replace(/Ċ/g, "\u21B5").replace(/\n/g, "\u21B5");
}
var Panel = class {
  constructor(hasFrames, title, steps2, onDetail, holes2 = /* @__PURE__ */ new Set(), onHole = () => {
  }) {
    this.steps = steps2;
    this.onDetail = onDetail;
    this.holes = holes2;
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
  positions(at2) {
    let last = this.frames.at(-1)?.positions;
    if (at2 < this.frames.length || !this.sample) return this.frames[at2]?.positions ?? [];
    let { tokens, pieces } = this.sample;
    return tokens.map((id, i) => {
      let known = last?.[i] ?? [];
      return [known.find((likely) => likely.id === id) ?? { id, token: pieces[i] ?? "", probability: 1 }, ...known.filter((likely) => likely.id !== id)];
    });
  }
  show() {
    let at2 = Number(this.slider.value), frame = this.frames[at2];
    this.time.textContent = frame ? `step ${at2 + 1} of ${this.steps}, \u03C4 = ${frame.tau.toFixed(2)}` : `after ${this.steps} ${this.steps === 1 ? "step" : "steps"}`;
    let open = this.sample && new Set(this.sample.open), positions = this.positions(at2);
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

// src/events.ts
async function* events(body) {
  let reader = body.pipeThrough(new TextDecoderStream()).getReader(), rest = "";
  for (; ; ) {
    let { done, value } = await reader.read();
    if (done) return;
    rest += value;
    let end;
    for (; (end = rest.indexOf(`

`)) >= 0; ) {
      let lines = rest.slice(0, end).split(`
`);
      rest = rest.slice(end + 2);
      let field = (name) => lines.filter((line) => line.startsWith(name + ":")).map((line) => line.slice(name.length + 1).trimStart()), data = field("data");
      data.length > 0 && (yield { name: field("event")[0] ?? "message", data: data.join(`
`) });
    }
  }
}

// src/server.ts
var headers = () => {
  let key = sessionStorage.getItem("key");
  return { "content-type": "application/json", ...key ? { authorization: `Bearer ${key}` } : {} };
};
async function call(path, body, signal) {
  let post = body ? { method: "POST", body: JSON.stringify(body) } : {}, send = () => fetch(path, { ...post, headers: headers(), ...signal ? { signal } : {} }), response = await send();
  if (response.status === 401) {
    let key = prompt("This server needs an API key");
    key && (sessionStorage.setItem("key", key), response = await send());
  }
  if (!response.ok) {
    let answer = await response.json().catch(() => null);
    throw new Error(answer?.error?.message ?? `the server answered with status ${response.status}`);
  }
  return response;
}
async function models() {
  return (await (await call("v1/models")).json()).data;
}
async function denoise(model2, request2, signal, onFrame) {
  if (!model2.frames)
    return (await (await call("v1/denoise", request2, signal)).json()).samples[0];
  let response = await call("v1/denoise", { ...request2, stream: !0 }, signal);
  for await (let { name, data } of events(response.body)) {
    let value = JSON.parse(data);
    if (name === "frame" && onFrame(value), name === "sample") return value;
    if (name === "error") throw new Error(value.error.message);
  }
  throw new Error("the server closed the connection before the sample was complete");
}

// src/page.ts
var at = (id) => document.getElementById(id), form = at("form"), text = at("text"), model = at("model"), steps = at("steps"), temperature = at("temperature"), noise = at("noise"), seed = at("seed"), beside = at("beside"), error = at("error"), status = at("status"), panels = at("panels"), detail = at("detail"), all = [], holes = /* @__PURE__ */ new Set(), source = null, owner = "", shown2 = [], current = 0, running = new AbortController(), chosen = () => all.find((one) => one.id === model.value) ?? all[0], stepCount = () => 2 ** Number(steps.value);
function showSteps() {
  at("steps-value").textContent = chosen()?.default_steps === null ? "one per token" : String(stepCount()), steps.disabled = chosen()?.default_steps === null;
}
function showBeside() {
  let before = beside.value, choices = [["", "nothing"], ["1", "1 step"], ["8", "8 steps"]];
  for (let other of all) other.id !== model.value && choices.push([`model ${other.id}`, other.id]);
  beside.replaceChildren(...choices.map(([value, label]) => new Option(label, value))), choices.some(([value]) => value === before) && (beside.value = before);
}
function request(of, count) {
  let flow = of.kind.includes("flow"), base = {
    model: of.id,
    seed: Number(seed.value),
    temperature: Number(temperature.value),
    ...of.default_steps === null ? {} : { steps: count },
    ...flow ? { noise_scale: Number(noise.value) } : {}
  }, tokens = owner === of.id ? source?.tokens : null;
  return tokens && holes.size > 0 ? { ...base, tokens: tokens.map((id, i) => holes.has(i) ? null : id) } : text.value.includes("___") ? { ...base, infill: text.value } : text.value.trim() === "" ? base : { ...base, prompt: text.value };
}
function link() {
  let settings = new URLSearchParams({
    model: model.value,
    text: text.value,
    steps: String(stepCount()),
    temperature: temperature.value,
    noise: noise.value,
    seed: seed.value,
    beside: beside.value
  });
  return `${location.origin}${location.pathname}#${settings}`;
}
function readLink() {
  let settings = new URLSearchParams(location.hash.slice(1)), read = (name, set) => {
    let value = settings.get(name);
    value !== null && set(value);
  };
  return read("model", (value) => all.some((one) => one.id === value) && (model.value = value)), read("text", (value) => text.value = value), read("steps", (value) => steps.value = String(Math.round(Math.log2(Number(value) || 1)))), read("temperature", (value) => temperature.value = value), read("noise", (value) => noise.value = value), read("seed", (value) => seed.value = value), showBeside(), read("beside", (value) => beside.value = value), settings.size > 0;
}
function toggleHole(of, panel, position) {
  source !== panel && holes.clear(), source = panel, owner = of.id, holes.delete(position) || holes.add(position), shown2.forEach((one) => one.redraw()), status.textContent = holes.size === 0 ? "" : `${holes.size} holes: Sample fills them and keeps the other tokens.`;
}
async function run() {
  let number = ++current;
  running.abort(), running = new AbortController();
  let { signal } = running;
  error.textContent = "", status.textContent = "Sampling \u2026";
  let first = chosen(), runs = [[first, stepCount()]];
  if (beside.value.startsWith("model ")) {
    let other = all.find((one) => `model ${one.id}` === beside.value);
    other && runs.push([other, other.default_steps === 1 ? 1 : stepCount()]);
  } else beside.value !== "" && runs.push([first, Number(beside.value)]);
  let requests = runs.map(([of, count]) => request(of, count));
  holes.clear(), source = null;
  let start = performance.now();
  shown2 = runs.map(([of, count]) => {
    let title = of.default_steps === null ? of.id : `${of.id}, ${count} ${count === 1 ? "step" : "steps"}`, show = (value) => detail.textContent = value;
    return new Panel(
      of.frames,
      title,
      of.default_steps === null ? of.length : count,
      show,
      holes,
      (panel, position) => toggleHole(of, panel, position)
    );
  }), panels.replaceChildren(...shown2.map((panel) => panel.root));
  try {
    await Promise.all(
      runs.map(async ([of], i) => {
        let panel = shown2[i], sample = await denoise(of, requests[i], signal, (frame) => number === current && panel.add(frame));
        number === current && panel.finish(sample);
      })
    ), number === current && (status.textContent = `Done in ${((performance.now() - start) / 1e3).toFixed(2)} s.`);
  } catch (cause) {
    if (number !== current) return;
    error.textContent = cause instanceof Error ? cause.message : String(cause), status.textContent = "";
  }
}
form.addEventListener("submit", (event) => {
  event.preventDefault(), run();
});
at("next").addEventListener("click", () => {
  seed.value = String(crypto.getRandomValues(new Uint32Array(1))[0]), run();
});
at("share").addEventListener("click", async () => {
  history.replaceState(null, "", link());
  let copied = await navigator.clipboard?.writeText(location.href).then(() => !0, () => !1);
  status.textContent = copied ? "The link is copied: it opens this sample." : "The address opens this sample.";
});
steps.addEventListener("input", showSteps);
text.addEventListener("input", () => holes.clear());
model.addEventListener("change", () => {
  holes.clear();
  let usual = chosen().default_steps;
  usual !== null && (steps.value = String(Math.round(Math.log2(usual === 1 ? 1 : 8)))), showSteps(), showBeside();
});
try {
  all = await models(), model.replaceChildren(...all.map((one) => new Option(`${one.id} (${one.kind})`, one.id)));
  let linked = readLink();
  !linked && chosen().default_steps === 1 && (steps.value = "0"), showSteps(), showBeside(), linked && await run();
} catch (cause) {
  error.textContent = cause instanceof Error ? cause.message : String(cause);
}

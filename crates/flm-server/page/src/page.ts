import { Panel } from "./panel.js";
import { denoise, models, type Model, type Request } from "./server.js";

const at = <E extends HTMLElement>(id: string) => document.getElementById(id) as E;
const form = at<HTMLFormElement>("form");
const text = at<HTMLTextAreaElement>("text");
const model = at<HTMLSelectElement>("model");
const steps = at<HTMLInputElement>("steps");
const temperature = at<HTMLInputElement>("temperature");
const noise = at<HTMLInputElement>("noise");
const seed = at<HTMLInputElement>("seed");
const beside = at<HTMLSelectElement>("beside");
const error = at("error");
const status = at("status");
const panels = at("panels");
const detail = at("detail");

let all: Model[] = [];
/** Positions of the last sample that are to be sampled again. */
const holes = new Set<number>();
/** The panel whose tokens stay where there is no hole. */
let source: Panel | null = null;
/** The model of that panel; other models may have other tokens. */
let owner = "";
let shown: Panel[] = [];
/** Counts requests, so that answers of earlier ones are dropped. */
let current = 0;
let running = new AbortController();

const chosen = () => all.find((one) => one.id === model.value) ?? all[0]!;
const stepCount = () => 2 ** Number(steps.value);

function showSteps(): void {
  at("steps-value").textContent = chosen()?.default_steps === null ? "one per token" : String(stepCount());
  steps.disabled = chosen()?.default_steps === null;
}

/** Fills the choices of the second panel: another number of steps, or another model. */
function showBeside(): void {
  const before = beside.value;
  const choices = [["", "nothing"], ["1", "1 step"], ["8", "8 steps"]];
  for (const other of all) if (other.id !== model.value) choices.push([`model ${other.id}`, other.id]);
  beside.replaceChildren(...choices.map(([value, label]) => new Option(label, value)));
  if (choices.some(([value]) => value === before)) beside.value = before;
}

function request(of: Model, count: number): Request {
  const flow = of.kind.includes("flow");
  const base: Request = {
    model: of.id,
    seed: Number(seed.value),
    temperature: Number(temperature.value),
    ...(of.default_steps === null ? {} : { steps: count }),
    ...(flow ? { noise_scale: Number(noise.value) } : {}),
  };
  const tokens = owner === of.id ? source?.tokens : null;
  if (tokens && holes.size > 0) return { ...base, tokens: tokens.map((id, i) => (holes.has(i) ? null : id)) };
  if (text.value.includes("___")) return { ...base, infill: text.value };
  return text.value.trim() === "" ? base : { ...base, prompt: text.value };
}

/** The address of the page with its settings. */
function link(): string {
  const settings = new URLSearchParams({
    model: model.value,
    text: text.value,
    steps: String(stepCount()),
    temperature: temperature.value,
    noise: noise.value,
    seed: seed.value,
    beside: beside.value,
  });
  return `${location.origin}${location.pathname}#${settings}`;
}

/** Reads the settings of the address; returns whether there are some. */
function readLink(): boolean {
  const settings = new URLSearchParams(location.hash.slice(1));
  const read = (name: string, set: (value: string) => void) => {
    const value = settings.get(name);
    if (value !== null) set(value);
  };
  read("model", (value) => all.some((one) => one.id === value) && (model.value = value));
  read("text", (value) => (text.value = value));
  read("steps", (value) => (steps.value = String(Math.round(Math.log2(Number(value) || 1)))));
  read("temperature", (value) => (temperature.value = value));
  read("noise", (value) => (noise.value = value));
  read("seed", (value) => (seed.value = value));
  showBeside();
  read("beside", (value) => (beside.value = value));
  return settings.size > 0;
}

function toggleHole(of: Model, panel: Panel, position: number): void {
  if (source !== panel) holes.clear();
  source = panel;
  owner = of.id;
  if (!holes.delete(position)) holes.add(position);
  shown.forEach((one) => one.redraw());
  status.textContent = holes.size === 0 ? "" : `${holes.size} holes: Sample fills them and keeps the other tokens.`;
}

async function run(): Promise<void> {
  const number = ++current;
  running.abort();
  running = new AbortController();
  const { signal } = running;
  error.textContent = "";
  status.textContent = "Sampling …";
  const first = chosen();
  const runs: [Model, number][] = [[first, stepCount()]];
  if (beside.value.startsWith("model ")) {
    const other = all.find((one) => `model ${one.id}` === beside.value);
    if (other) runs.push([other, other.default_steps === 1 ? 1 : stepCount()]);
  } else if (beside.value !== "") {
    runs.push([first, Number(beside.value)]);
  }
  const requests = runs.map(([of, count]) => request(of, count));
  holes.clear();
  source = null;
  const start = performance.now();
  shown = runs.map(([of, count]) => {
    const title = of.default_steps === null ? of.id : `${of.id}, ${count} ${count === 1 ? "step" : "steps"}`;
    const show = (value: string) => (detail.textContent = value);
    return new Panel(of.frames, title, of.default_steps === null ? of.length : count, show, holes, (panel, position) =>
      toggleHole(of, panel, position),
    );
  });
  panels.replaceChildren(...shown.map((panel) => panel.root));
  try {
    await Promise.all(
      runs.map(async ([of], i) => {
        const panel = shown[i]!;
        const sample = await denoise(of, requests[i]!, signal, (frame) => number === current && panel.add(frame));
        if (number === current) panel.finish(sample);
      }),
    );
    if (number === current) status.textContent = `Done in ${((performance.now() - start) / 1000).toFixed(2)} s.`;
  } catch (cause) {
    if (number !== current) return;
    error.textContent = cause instanceof Error ? cause.message : String(cause);
    status.textContent = "";
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  void run();
});
at("next").addEventListener("click", () => {
  seed.value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
  void run();
});
at("share").addEventListener("click", async () => {
  history.replaceState(null, "", link());
  // Browsers offer the clipboard to secure pages only.
  const copied = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
  status.textContent = copied ? "The link is copied: it opens this sample." : "The address opens this sample.";
});
steps.addEventListener("input", showSteps);
text.addEventListener("input", () => holes.clear());
model.addEventListener("change", () => {
  holes.clear();
  const usual = chosen().default_steps;
  if (usual !== null) steps.value = String(Math.round(Math.log2(usual === 1 ? 1 : 8)));
  showSteps();
  showBeside();
});

try {
  all = await models();
  model.replaceChildren(...all.map((one) => new Option(`${one.id} (${one.kind})`, one.id)));
  const linked = readLink();
  if (!linked && chosen().default_steps === 1) steps.value = "0";
  showSteps();
  showBeside();
  if (linked) await run();
} catch (cause) {
  error.textContent = cause instanceof Error ? cause.message : String(cause);
}

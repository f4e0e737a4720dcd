import { Panel } from "./panel.js";
import type { Frame } from "./server.js";

/** A sample of a trace file. */
interface Traced {
  text: string;
  tokens: number[];
  model: string;
  steps: number;
  condition?: { open: number[] };
  trace: Frame[];
}

const samples: Traced[] = JSON.parse(document.getElementById("trace")!.textContent!);
const detail = document.getElementById("detail")!;
const panels = samples.map((sample) => {
  const title = `${sample.model}, ${sample.steps} ${sample.steps === 1 ? "step" : "steps"}`;
  const panel = new Panel(true, title, sample.steps, (text) => (detail.textContent = text));
  sample.trace.forEach((frame) => panel.add(frame));
  const last = sample.trace.at(-1)?.positions ?? [];
  const pieces = sample.tokens.map((id, i) => last[i]?.find((likely) => likely.id === id)?.token ?? "");
  panel.finish({ ...sample, pieces, open: sample.condition?.open ?? sample.tokens.map((_, i) => i) });
  return panel;
});
document.getElementById("panels")!.replaceChildren(...panels.map((panel) => panel.root));
document.getElementById("play")!.addEventListener("click", () => panels.forEach((panel) => panel.start()));

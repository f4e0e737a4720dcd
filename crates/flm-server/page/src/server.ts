import { events } from "./events.js";

export interface Model {
  id: string;
  kind: string;
  length: number;
  default_steps: number | null;
  frames: boolean;
}

export interface Likely {
  id: number;
  token: string;
  probability: number;
}

export interface Frame {
  t: number;
  tau: number;
  positions: Likely[][];
}

export interface Sample {
  text: string;
  tokens: number[];
  pieces: string[];
  open: number[];
}

/** A request of `/v1/denoise`. */
export interface Request {
  model: string;
  steps?: number;
  seed: number;
  temperature: number;
  noise_scale?: number;
  prompt?: string;
  infill?: string;
  tokens?: (number | null)[];
}

const headers = () => {
  const key = sessionStorage.getItem("key");
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
};

/** Calls the server; asks for an API key where one is needed. */
async function call(path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const post = body ? { method: "POST", body: JSON.stringify(body) } : {};
  const send = () => fetch(path, { ...post, headers: headers(), ...(signal ? { signal } : {}) });
  let response = await send();
  if (response.status === 401) {
    const key = prompt("This server needs an API key");
    if (key) {
      sessionStorage.setItem("key", key);
      response = await send();
    }
  }
  if (!response.ok) {
    const answer = await response.json().catch(() => null);
    throw new Error(answer?.error?.message ?? `the server answered with status ${response.status}`);
  }
  return response;
}

export async function models(): Promise<Model[]> {
  return (await (await call("v1/models")).json()).data;
}

/** Draws one sample and reports each frame. */
export async function denoise(
  model: Model,
  request: Request,
  signal: AbortSignal,
  onFrame: (frame: Frame) => void,
): Promise<Sample> {
  if (!model.frames) {
    const answer = await (await call("v1/denoise", request, signal)).json();
    return answer.samples[0];
  }
  const response = await call("v1/denoise", { ...request, stream: true }, signal);
  for await (const { name, data } of events(response.body!)) {
    const value = JSON.parse(data);
    if (name === "frame") onFrame(value);
    if (name === "sample") return value;
    if (name === "error") throw new Error(value.error.message);
  }
  throw new Error("the server closed the connection before the sample was complete");
}

// A run: asked for, streamed, and kept in this tab under its address.
import { ask, errorMessage, url } from "../dom.js";
import { parse } from "../patches.js";
import { settingOf } from "./features.js";

const KEPT = 20;
const MOST_TOKENS = 64; // of several candidates at once
const place = () => `steer-runs ${document.documentElement.dataset.base} ${document.documentElement.dataset.store}`;

/** The state of the page as an address, so that a run can be shared. */
export function address(state) {
  return url("/steer", {
    ...(state.image ? { image: state.image.hash } : { sample: state.sample || "none" }),
    prompt: state.prompt, feature: state.features.map((f) => `${f.id}:${f.mode}:${f.strength}${f.family ? ":family" : ""}`),
    target: state.target, scope: state.scope.join(",") || "none", attention: state.attention === "frozen" ? "frozen" : "", mask: state.mask, max_tokens: state.max_tokens, temperature: state.temperature, seed: state.seed,
  });
}

/** The page that explains an answer of a run; null for one drawn at random or with frozen attention: that page asks for the likeliest, and free. */
export function whyAddress(run, steered) {
  const of = new URL(run, location.href).searchParams;
  const field = (name) => of.get(name) ?? "";
  if (Number(field("temperature")) || (steered && field("attention") === "frozen")) return null;
  const steering = steered ? { feature: of.getAll("feature"), scope: field("scope") } : {};
  return url("/explain", { image: field("image"), sample: field("sample"), prompt: field("prompt") || " ", max_tokens: Math.min(64, field("max_tokens")), ...steering });
}

/** What a run changes, in a few words. */
export const describe = (state) => state.features.map((f) => `#${f.id} ${settingOf(f)}`).join(", ") || "no feature";

export function readRuns() {
  try { return JSON.parse(sessionStorage.getItem(place())) ?? []; } catch { return []; }
}

/** The runs with this one first, once. */
export function keepRun(runs, run) {
  const older = runs.filter((r) => r.address !== run.address).map((r) => ({ ...r, tokens: null })); // for room
  const newRuns = [run, ...older].slice(0, KEPT);
  try { sessionStorage.setItem(place(), JSON.stringify(newRuns)); } catch { /* no room, or a private window: they hold until one leaves */ }
  return newRuns;
}

export const EMPTY = { default: [], steered: [], tokens: { default: [], steered: [] }, kl: [], done: null, error: "", before: 0 };

/** The image of a run in words. */
export const inputOf = (state) => (state.image ? "own image" : state.sample || "no image");

export const newRun = (state) => ({
  phase: "running", address: address(state), what: describe(state), max_tokens: state.max_tokens, input: inputOf(state),
  ...EMPTY,
});

const edits = (features) => features.map(({ id, mode, strength, family }) => ({ id, mode, strength: mode === "ablate" ? 0 : strength, family: Boolean(family) }));

/** The body of POST /api/v1/steer, but for what is edited. */
function requestBody(state) {
  const { prompt, scope, max_tokens, temperature, seed, sample, image, target, attention } = state;
  const mask = state.mask && scope.includes("image") ? { mask: [...parse(state.mask)].map((key) => key.split(":").map(Number)) } : {};
  return { prompt, scope, max_tokens, temperature, seed, attention, ...mask, ...(target?.trim() ? { target: target.trim() } : {}), ...(image ? { image_hash: image.hash } : sample ? { sample_id: sample } : {}) };
}

const post = (body, signal) => ask(url("/api/v1/steer"), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });

/** The runs of several candidates, {features, control, seed}, at once. */
export async function runTogether(state, candidates, signal) {
  const body = { ...requestBody(state), max_tokens: Math.min(state.max_tokens, MOST_TOKENS), candidates: candidates.map((candidate) => ({ ...candidate, features: edits(candidate.features) })) };
  const { runs } = await (await post(body, signal)).json();
  return runs.map((r) => ({ default: r.tokens.default.map((t) => t.text), steered: r.tokens.steered.map((t) => t.text), target: r.target, done: r }));
}

/** Stream the two answers; `update` takes a function from the old run to the new one. */
export async function generate(state, signal, update) {
  try {
    const response = await post({ ...requestBody(state), features: edits(state.features), alternatives: 5 }, signal);
    const { events } = await import("../sse.js"); // only now: no page needs it before
    for await (const { event: kind, data } of events(response.body)) {
      if (kind === "token") update((old) => ({ ...old, before: 0, [data.channel]: [...old[data.channel], data.text], tokens: { ...old.tokens, [data.channel]: [...old.tokens[data.channel], data] } }));
      else if (kind === "target") update((old) => ({ ...old, target: data }));
      else if (kind === "waiting") update((old) => ({ ...old, before: data.before }));
      else if (kind === "kl") update((old) => ({ ...old, kl: [...old.kl, data.kl] }));
      else if (kind === "done") update((old) => ({ ...old, phase: "done", done: data }));
      else if (kind === "error") throw new Error(data.detail ?? data.message ?? "The model stopped with an error.");
    }
    update((old) => (old.phase === "running" ? { ...old, phase: "error", error: "The stream ended before the answer was complete." } : old));
  } catch (error) {
    update((old) => (error.name === "AbortError" ? { ...old, phase: "stopped" } : { ...old, phase: "error", error: errorMessage(error) }));
  }
}

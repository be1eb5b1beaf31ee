// The live model loads in the background of the server, while pages already work.
import { api } from "./dom.js";

/** Ask for the model's state until it no longer loads, then call `then` once. */
export async function whenLoaded(then) {
  for (;;) {
    await new Promise((done) => setTimeout(done, 3000));
    try { if ((await api("/live")).state !== "loading") break; } catch { /* the server does not answer now: try again */ }
  }
  then();
}

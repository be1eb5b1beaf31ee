// The live model loads in the background of the server, while pages already work.
import { api } from "./dom.js";

/** Ask for the model's state until it no longer loads, then call `then` once. */
export function whenLoaded(then) {
  const timer = setInterval(async () => {
    try {
      if ((await api("/live")).state === "loading") return;
      clearInterval(timer);
      then();
    } catch { /* the server does not answer now: try again */ }
  }, 3000);
}

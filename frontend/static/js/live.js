// The live model, which loads while pages already work, and images for it.
import { api } from "./dom.js";

/** Ask for the model's state until it no longer loads, then call `then` once. */
export async function whenLoaded(then) {
  for (;;) {
    await new Promise((done) => setTimeout(done, 3000));
    try { if ((await api("/live")).state !== "loading") break; } catch { /* the server does not answer now: try again */ }
  }
  then();
}

/** Let the server hold an image: {hash, url, width, height}. */
export function upload(file) {
  const body = new FormData();
  body.append("image", file);
  return api("/images", {}, { method: "POST", body });
}

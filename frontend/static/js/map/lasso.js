// The lasso: draw around points, and the server lists the features inside. The corners are in the address.
import { swap } from "../app.js";
import { $, say } from "../dom.js";
import { canvas } from "./canvas.js";
import { address, hover } from "./input.js";
import { drawOverlay, state } from "./overlay.js";

const MOST_CORNERS = 48;
const STEP = 4; // pixels between two corners
const button = $("#map-lasso");

export const isDrawing = () => button?.getAttribute("aria-pressed") === "true";

/** Turn the lasso on or off; the next stroke on the map is then an area. */
export function toggle(on = !isDrawing()) {
  if (!button) return; // an exported site: no server lists what is inside
  button.setAttribute("aria-pressed", on);
  canvas.classList.toggle("lasso", on);
  if (!on) return;
  hover(-1); // no tooltip over what is drawn around
  say($("#map-hint").textContent);
}

/** The corners in the address: x-y_x-y_x-y, after the name of the second layout. */
export const areaText = () => [...(state.area.length && state.layout && state.layout !== "decoder" ? [state.layout] : []), ...state.area.map((corner) => corner.join("-"))].join("_");

/** Read the area of the panel beside the map. */
export function readArea() {
  const text = $("#area").dataset.area;
  state.area = text ? text.split("_").filter((part) => part !== state.layout).map((corner) => corner.split("-").map(Number)) : [];
}

let last = null;
/** Add a position on the canvas to the stroke. */
export function draw(px, py, first = false) {
  if (first) state.area = [];
  else if (last && Math.hypot(px - last[0], py - last[1]) < STEP * state.plot.ratio) return;
  last = [px, py];
  state.area.push(state.plot.unplace(px, py));
  drawOverlay();
}

/** End the stroke, and ask the server for what is inside. */
export function close() {
  const every = Math.ceil(state.area.length / MOST_CORNERS);
  state.area = state.area.filter((_, i) => i % every === 0);
  toggle(false);
  if (state.area.length < 3) { readArea(); drawOverlay(); return; }
  swap(address(), "area").then(() => $("#area").scrollIntoView({ block: "nearest" })); // it is below the map on a phone
}

/** Give up the stroke. */
export function abandon() {
  readArea();
  drawOverlay();
}

/** The visible part of the map as an area: what the lasso is without a pointer. */
export function takeView() {
  const { plot } = state;
  state.area = [[0, 0], [plot.width, 0], [plot.width, plot.height], [0, plot.height]].map((at) => plot.unplace(...at));
  close();
}

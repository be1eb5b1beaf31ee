// Pointer, fingers and keys on the map, the view that they change, and the page's address, which has the state.
import { swap } from "../app.js";
import { $, say, url } from "../dom.js";
import { canvas, clamp, drawOverlay, fetchLabels, hideTip, redraw, showTip, state } from "./overlay.js";
import { LAST } from "./points.js";

const REACH = 12; // pixels between pointer and point
const TOUCH_REACH = 24;
const MAX_ZOOM = 400;

// ---- the view

export function readView() {
  const [x, y, zoom] = canvas.dataset.view.split(",").map(Number);
  if ([x, y, zoom].every(Number.isFinite) && zoom > 0) Object.assign(state.plot, { cx: clamp(x, 0, 1), cy: clamp(y, 0, 1), zoom: clamp(zoom, 1, MAX_ZOOM) });
}

/** Zoom by `factor`, with the place at (px, py) in device pixels fixed. */
export function zoomAt(factor, px = state.plot.width / 2, py = state.plot.height / 2) {
  const { plot } = state;
  const before = plot.scale * LAST;
  plot.zoom = clamp(plot.zoom * factor, 1, MAX_ZOOM);
  const after = plot.scale * LAST;
  pan((px - plot.width / 2) * (1 / before - 1 / after), (py - plot.height / 2) * (1 / before - 1 / after));
}

/** Move the centre; dx and dy are parts of the map's width and height. */
function pan(dx, dy) {
  const { plot } = state;
  plot.cx = clamp(plot.cx + dx, 0, 1);
  plot.cy = clamp(plot.cy + dy, 0, 1);
  if (state.keys) hover(plot.nearest(plot.width / 2, plot.height / 2, 60 * plot.ratio), true);
  else hover(-1);
  redraw();
  updateAddressSoon();
}

export function centre(i, zoom) {
  const { plot } = state;
  if (plot.data.x[i] > LAST) return;
  plot.cx = plot.data.x[i] / LAST;
  plot.cy = plot.data.y[i] / LAST;
  plot.zoom = Math.max(plot.zoom, zoom);
}

export function showAll() {
  Object.assign(state.plot, { cx: 0.5, cy: 0.5, zoom: 1 });
  pan(0, 0);
}

// ---- the address

let timer;
export function updateAddressSoon() {
  clearTimeout(timer);
  timer = setTimeout(updateAddress, 250);
}
export function updateAddress() {
  clearTimeout(timer);
  history.replaceState(null, "", address());
}
function address(feature = state.chosen) {
  const { plot } = state;
  const view = plot.zoom > 1.001 ? [plot.cx.toFixed(4), plot.cy.toFixed(4), plot.zoom.toFixed(2)].join(",") : "";
  const colour = state.colour === "verdict" ? "" : state.colour;
  return url("/map", { colour, hide: [...state.hide].join(","), q: $("[name=q]").value.trim(), feature: feature >= 0 ? feature : "", view });
}

// ---- the feature under the pointer

let hovering;
let selecting;
function hover(i, announce = false) {
  if (i === state.hover) return;
  state.hover = i;
  clearTimeout(hovering);
  clearTimeout(selecting);
  drawOverlay();
  canvas.classList.toggle("on-point", i >= 0);
  if (i < 0) { hideTip(); return; }
  let text = showTip(i);
  hovering = setTimeout(async () => {
    await fetchLabels([i]); // or the names drawn on the map have brought it meanwhile
    if (state.hover === i) text = showTip(i);
    if (announce && state.hover === i) say(text);
  }, 80);
  if (!announce) selecting = setTimeout(() => select(i), 450);
}

/** The server renders the selected feature beside the map. */
async function select(i) {
  if (i !== state.chosen) await swap(address(i), "chosen", { history: null });
}

function open(i, event) {
  updateAddress(); // so that the browser's back button returns to this view
  const to = url(`/features/${i}`);
  if (event.metaKey || event.ctrlKey) globalThis.open(to, "_blank", "noopener"); else location.assign(to);
}

// ---- pointer and fingers

/** Where an event is on the canvas, in device pixels. */
function position(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * state.plot.ratio, (event.clientY - box.top) * state.plot.ratio];
}
const under = (event, reach = REACH) => state.plot.nearest(...position(event), reach * state.plot.ratio);

const pointers = new Map(); // pressed pointers: id → position
let moved = 0; // device pixels since the first was pressed
const isDrag = () => moved >= 4 * state.plot.ratio; // less is an unsteady hand

canvas.addEventListener("pointerdown", (event) => {
  if (!state.plot || event.button > 0) return;
  state.keys = false;
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, position(event));
  if (pointers.size === 1) moved = 0;
});

canvas.addEventListener("pointermove", (event) => {
  if (!state.plot) return;
  const before = pointers.get(event.pointerId);
  if (!before) { if (event.pointerType === "mouse") hover(under(event)); return; }
  const now = position(event);
  const step = [now[0] - before[0], now[1] - before[1]];
  moved += Math.hypot(...step);
  if (!isDrag()) return;
  const scale = state.plot.scale * LAST;
  if (pointers.size === 1) pan(-step[0] / scale, -step[1] / scale);
  else { // two fingers: half of the step moves the map, the change of their distance zooms
    const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const distance = (a) => Math.max(1, Math.hypot(a[0] - other[0], a[1] - other[1]));
    pan(-step[0] / 2 / scale, -step[1] / 2 / scale);
    zoomAt(distance(now) / distance(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  }
  pointers.set(event.pointerId, now);
});

function release(event) {
  if (!pointers.delete(event.pointerId) || event.type !== "pointerup" || isDrag() || pointers.size) return;
  const touch = event.pointerType !== "mouse";
  const i = under(event, touch ? TOUCH_REACH : REACH);
  if (i < 0) { hover(-1); return; }
  if (touch && i !== state.hover) { hover(i); return; } // the first tap shows the feature, the second opens it
  open(i, event);
}
for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, release);
canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse" && !pointers.size) hover(-1); });
canvas.addEventListener("wheel", (event) => {
  if (!state.plot) return;
  event.preventDefault();
  const lines = event.deltaMode === 1 ? 16 : 1;
  zoomAt(2 ** (-clamp(event.deltaY * lines, -240, 240) / 240), ...position(event));
}, { passive: false });

// ---- keys

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
canvas.addEventListener("keydown", (event) => {
  if (!state.plot || event.metaKey || event.ctrlKey || event.altKey) return;
  const move = MOVES[event.key];
  const factor = { "+": 1.5, "=": 1.5, "-": 1 / 1.5, "−": 1 / 1.5 }[event.key];
  if (!move && !factor && !["0", "Enter"].includes(event.key)) return;
  event.preventDefault();
  const step = (event.shiftKey ? 0.4 : 0.08) / state.plot.zoom;
  state.keys = true;
  if (move) pan(move[0] * step, move[1] * step);
  else if (factor) zoomAt(factor);
  else if (event.key === "0") showAll();
  else if (state.hover >= 0) open(state.hover, event);
});
canvas.addEventListener("focus", () => {
  if (!state.plot || !canvas.matches(":focus-visible")) return;
  state.keys = true;
  pan(0, 0);
});
canvas.addEventListener("blur", () => { if (state.plot && state.keys) { state.keys = false; hover(-1); drawOverlay(); } });

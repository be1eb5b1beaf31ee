// Pointer, fingers and keys on the map, the view that they change, and the page's address, which has the state.
import { swap } from "../app.js";
import { $, $$, say, url } from "../dom.js";
import { FILES, canvas } from "./canvas.js";
import * as lasso from "./lasso.js";
import { clamp, drawOverlay, fetchLabels, hideTip, kind, labels, redraw, showTip, state } from "./overlay.js";
import { LAST } from "./points.js";

const REACH = 12; // pixels between pointer and point
const TOUCH_REACH = 24;
const MAX_ZOOM = 400;

// ---- the view

/** Take over the view of an address, `x,y,zoom`; true if it has one. */
export function readView(text) {
  const [x, y, zoom] = text.split(",").map(Number);
  const good = text !== "" && [x, y, zoom].every(Number.isFinite) && zoom > 0;
  if (good) Object.assign(state.plot, { cx: clamp(x, 0, 1), cy: clamp(y, 0, 1), zoom: clamp(zoom, 1, MAX_ZOOM) });
  return good;
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
  if (!state.keys) hover(-1);
  else if (state.hover >= 0) showTip(state.hover);
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
export function updateAddress(more = {}) {
  clearTimeout(timer);
  if (FILES) return;
  history.replaceState({ ...history.state, ...more }, "", address());
  // Lists lead back to this view; they have some names for filters of their own.
  const state = new URL(location).searchParams;
  for (const list of $$("main a[data-view]")) {
    const to = new URL(list.href);
    for (const names of list.dataset.view.split(" ")) {
      const [name, inList = name] = names.split(":");
      if (state.has(name)) to.searchParams.set(inList, state.get(name)); else to.searchParams.delete(inList);
    }
    list.href = to;
  }
}
const OWN = new Set(["store", "of", "colour", "sample", "hide", "layout", "area"]); // of the form's fields; the state has them
/** The fields of the search, which the address has too. */
function searchFields() {
  const fields = new FormData($(".map-search")), names = [...new Set(fields.keys())].filter((name) => !OWN.has(name));
  return Object.fromEntries(names.map((name) => [name, fields.getAll(name).map((text) => text.trim()).filter(Boolean)]));
}
export function address(point = state.pinned, layout = state.layout) {
  const { plot } = state;
  const isSameLayout = layout === state.layout; // places on one map mean nothing on the other
  const fields = searchFields();
  // The whole map is the default, unless the page would move to a point or to what was found.
  const moves = plot.zoom > 1.001 || point >= 0 || state.area.length || Object.values(fields).some((values) => values.length);
  const view = isSameLayout && moves ? [plot.cx.toFixed(4), plot.cy.toFixed(4), plot.zoom.toFixed(2)].join(",") : "";
  return url("/map", {
    ...kind.state({ ...state, layout }), ...fields, area: isSameLayout ? lasso.areaText() : "", [kind.pinned]: point >= 0 ? point : "", view,
  });
}

// ---- the point under the pointer

let hovering;
let selecting;
export function hover(i, announce = false) {
  if (i === state.hover) return;
  state.hover = i;
  state.lost = -1;
  clearTimeout(hovering);
  clearTimeout(selecting);
  drawOverlay();
  canvas.classList.toggle("on-point", i >= 0);
  if (i < 0) { hideTip(); return; }
  let text = showTip(i);
  hovering = setTimeout(async () => {
    await fetchLabels([i]); // or the names drawn on the map have brought it meanwhile
    if (state.hover === i) {
      if (!labels.has(i)) state.lost = i;
      text = showTip(i);
    }
    if (announce && state.hover === i) say(text);
  }, 80);
  if (announce || state.pinned < 0) selecting = setTimeout(() => show(i, announce ? "replace" : null), announce ? 200 : 450);
}

/** The server renders a point beside the map: with `how` it is pinned, that is, in the address. */
async function show(i, how) {
  if (how) state.pinned = i;
  if (FILES) return;
  if (how || i !== state.chosen) await swap(address(i), "chosen", { history: how, background: !how });
}

const pin = (i) => { clearTimeout(selecting); if (i !== state.pinned) show(i, "push"); };

async function open(i, event) {
  updateAddress({ onMap: document.activeElement === canvas }); // so that the browser's back button returns to this view
  if (!kind.page(i, labels.get(i))) await fetchLabels([i]);
  const to = kind.page(i, labels.get(i));
  if (!to) return;
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
  if (lasso.isDrawing()) lasso.draw(...position(event), true);
});

canvas.addEventListener("pointermove", (event) => {
  if (!state.plot) return;
  const oldPosition = pointers.get(event.pointerId);
  if (!oldPosition) { if (event.pointerType === "mouse") hover(lasso.isDrawing() ? -1 : under(event)); return; }
  const newPosition = position(event);
  if (lasso.isDrawing()) { lasso.draw(...newPosition); return; }
  const step = [newPosition[0] - oldPosition[0], newPosition[1] - oldPosition[1]];
  moved += Math.hypot(...step);
  if (!isDrag()) return;
  const scale = state.plot.scale * LAST;
  if (pointers.size === 1) pan(-step[0] / scale, -step[1] / scale);
  else { // two fingers: half of the step moves the map, the change of their distance zooms
    const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const distance = (a) => Math.max(1, Math.hypot(a[0] - other[0], a[1] - other[1]));
    pan(-step[0] / 2 / scale, -step[1] / 2 / scale);
    zoomAt(distance(newPosition) / distance(oldPosition), (newPosition[0] + other[0]) / 2, (newPosition[1] + other[1]) / 2);
  }
  pointers.set(event.pointerId, newPosition);
});

function release(event) {
  if (!pointers.delete(event.pointerId)) return;
  if (lasso.isDrawing()) { if (event.type === "pointerup") lasso.close(); else lasso.abandon(); return; }
  if (event.type !== "pointerup" || isDrag() || pointers.size) return;
  const touch = event.pointerType !== "mouse";
  const i = under(event, touch ? TOUCH_REACH : REACH);
  if (i < 0) { hover(-1); return; }
  if (event.ctrlKey || event.metaKey || (touch && i === state.pinned)) { open(i, event); return; }
  hover(i);
  if (FILES && !touch) open(i, event);
  else pin(i);
}
canvas.addEventListener("dblclick", (event) => {
  const i = state.plot ? under(event) : -1;
  if (i >= 0) open(i, event);
});
for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, release);
canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse" && !pointers.size) hover(-1); });
canvas.addEventListener("wheel", (event) => {
  // The page scrolls, unless the map was clicked before or Ctrl is held.
  if (!state.plot || !(event.ctrlKey || event.metaKey || document.activeElement === canvas)) return;
  event.preventDefault();
  const lines = event.deltaMode === 1 ? 16 : 1;
  zoomAt(2 ** (-clamp(event.deltaY * lines, -240, 240) / 240), ...position(event));
}, { passive: false });

// One finger up and down scrolls the page (map.css); two fingers are the map's.
canvas.addEventListener("touchmove", (event) => { if (event.touches.length > 1) event.preventDefault(); }, { passive: false });

// ---- keys

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
canvas.addEventListener("keydown", (event) => {
  if (!state.plot || event.metaKey || event.ctrlKey || event.altKey) return;
  const move = MOVES[event.key];
  const factor = { "+": 1.5, "=": 1.5, "-": 1 / 1.5, "−": 1 / 1.5 }[event.key];
  if (!move && !factor && !["0", "Enter"].includes(event.key)) return;
  event.preventDefault();
  const step = 0.2 / state.plot.zoom;
  state.keys = true;
  if (move && event.shiftKey) pan(move[0] * step, move[1] * step);
  else if (move) jump(...move);
  else if (factor) zoomAt(factor);
  else if (event.key === "0") showAll();
  else if (lasso.isDrawing()) lasso.takeView();
  else if (Math.max(state.hover, state.pinned) >= 0) open(state.hover >= 0 ? state.hover : state.pinned, event);
});

/** From the point that the keys are on to the nearest one in a direction. */
function jump(dx, dy) {
  const { plot } = state;
  const next = state.hover < 0 ? start() : plot.toward(state.hover, dx, dy, 5 * plot.ratio);
  if (next < 0) { say(`There is no ${kind.noun} further on in this direction.`); return; }
  const margin = 30 * plot.ratio;
  const [x, y] = plot.at(next);
  const beyond = (at, size) => (Math.min(at - margin, 0) + Math.max(at + margin - size, 0)) / (plot.scale * LAST);
  hover(next, true);
  if (beyond(x, plot.width) || beyond(y, plot.height)) pan(beyond(x, plot.width), beyond(y, plot.height));
}

/** Where the keys begin: at the pinned point if it is in view, otherwise at the one nearest to the middle. */
function start() {
  const { plot, pinned } = state;
  const [x, y] = pinned >= 0 ? plot.at(pinned) : [-1, -1];
  if (x >= 0 && y >= 0 && x < plot.width && y < plot.height) return pinned;
  return plot.nearest(plot.width / 2, plot.height / 2, Math.max(plot.width, plot.height));
}

canvas.addEventListener("focus", () => {
  if (!state.plot || !canvas.matches(":focus-visible")) return;
  state.keys = true;
  const i = start();
  if (i !== state.pinned) { hover(-1); return; }
  hover(i, true);
});
canvas.addEventListener("blur", () => { if (state.plot && state.keys) { state.keys = false; hover(-1); drawOverlay(); } });

document.addEventListener("keydown", (event) => {
  if (!state.plot || event.metaKey || event.ctrlKey || event.altKey || event.target.closest("input, textarea, select")) return;
  if (event.key === "l") { event.preventDefault(); lasso.toggle(); }
  if (event.key !== "Escape" || $(".panel.max")) return;
  if (lasso.isDrawing()) { lasso.abandon(); lasso.toggle(false); } else if (state.pinned >= 0) { hover(-1); show(-1, "push"); }
});

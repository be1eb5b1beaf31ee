// The map page: what one does with the points of mapplot.js. The state (colour, hidden kinds, words, chosen feature,
// view) stands in the address; what is found and chosen is a part of the page that the server renders.
import { swap } from "./app.js";
import { $, $$, api, problem, said, say, url } from "./dom.js";
import { LAST, Plot, mix, parse, quantile, rgba } from "./mapplot.js";

const canvas = $("#map");
const over = $("#map-over");
const tip = $("#map-tip");
const status = $("#map-state");
const VERDICTS = canvas.dataset.verdicts.split(",");
const ON_TOP = ["too-rare", "image-only", "text-only", "unaligned", "cross-modal"]; // the later is drawn over the former
const NEAR = 12; // pixels within which the pointer means a point
const MOST = 400; // zoom

const state = { colour: canvas.dataset.colour, hide: new Set(canvas.dataset.hide.split(",").filter(Boolean)), hover: -1, chosen: -1, neighbours: [], keys: false };
const labels = new Map(); // feature → {label, verdict, …}; filled as names are asked for
let plot;
let ground;
let ink;
let halo;

// ---- begin

async function load() {
  status.hidden = false;
  status.classList.remove("failed");
  status.textContent = "Loading the map …";
  try {
    const response = await fetch(canvas.dataset.url);
    if (!response.ok) throw new Error(await problem(response));
    plot = new Plot(canvas, parse(await response.arrayBuffer()));
  } catch (error) {
    const again = Object.assign(document.createElement("button"), { type: "button", textContent: "Try again", onclick: load });
    status.classList.add("failed");
    status.replaceChildren(`${said(error)} `, again);
    return;
  }
  status.hidden = true;
  readView();
  readMarks();
  readChosen();
  if (state.chosen >= 0 && !canvas.dataset.view) centre(state.chosen, 8);
  recolour();
  new ResizeObserver(fit).observe(canvas.parentElement);
  fit();
  draw();
  // The frame after the one that shows the points: they are on the screen then.
  requestAnimationFrame(() => requestAnimationFrame(() => { performance.mark("map-drawn"); canvas.dataset.drawn = plot.order.length; }));
}

function fit() {
  const { width, height } = canvas.parentElement.getBoundingClientRect();
  plot.resize(width, height);
  over.width = plot.width;
  over.height = plot.height;
  redraw();
}

// ---- colours

const probe = document.body.appendChild(Object.assign(document.createElement("span"), { hidden: true }));

/** A colour of tokens.css as it is in the theme that is on. */
function token(name) {
  probe.style.color = `var(--${name})`;
  return rgba(...getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number));
}
const css = (colour) => `rgb(${colour & 255} ${(colour >> 8) & 255} ${(colour >> 16) & 255})`;

function recolour() {
  const { data, shade, table } = plot;
  const kinds = VERDICTS.map((name) => ON_TOP.indexOf(name));
  const kept = VERDICTS.map((name) => !state.hide.has(name));
  const keep = (i) => kept[data.verdict[i]];
  ground = token("surface");
  ink = css(token("ink"));
  halo = css(ground);
  const ramp = $("#map-ramp");
  ramp.hidden = state.colour === "verdict";
  canvas.closest(".panel").classList.toggle("by-figure", !ramp.hidden);
  if (state.colour === "verdict") {
    VERDICTS.forEach((name, v) => { if (name !== "dead") table[v] = token(`map-${name}`); });
    shade.set(data.verdict);
    plot.level = data.verdict.map((v) => Math.max(0, kinds[v]));
  } else {
    const values = data[state.colour];
    const low = quantile(values, 0.02);
    const high = Math.max(low + 1, quantile(values, 0.98));
    const stops = [1, 2, 3, 4, 5].map((k) => token(`ramp-${k}`));
    table[0] = token("map-none");
    for (let value = 1; value < 256; value++) {
      const place = 4 * Math.min(1, Math.max(0, (value - low) / (high - low)));
      const stop = Math.min(3, Math.floor(place));
      table[value] = mix(stops[stop], stops[stop + 1], place - stop);
    }
    shade.set(values);
    plot.level = values;
    const said = state.colour === "omega" ? (v) => ((v - 128) / 127).toFixed(2) : (v) => `${Number((100 * 10 ** (6 * ((v - 1) / 254 - 1))).toPrecision(2))} %`;
    $("[data-low]", ramp).textContent = `${state.colour === "omega" ? "ω" : "density"} ${said(low)} or less`;
    $("[data-high]", ramp).textContent = `${said(high)} or more`;
    $("[data-none]", ramp).textContent = state.colour === "omega" ? "no ω" : "none";
  }
  plot.select(keep, plot.level);
}

new MutationObserver(() => plot && (recolour(), redraw())).observe(document.documentElement, { attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot && (recolour(), redraw()));

// ---- drawing

let frame = 0;
function redraw() {
  frame ||= requestAnimationFrame(() => { frame = 0; draw(); });
}

function draw() {
  plot.draw(ground);
  drawOver();
  clearTimeout(naming);
  naming = setTimeout(name, 160);
}

/** Rings, lines and names over the points. */
function drawOver() {
  const pen = over.getContext("2d");
  const r = plot.ratio;
  pen.clearRect(0, 0, over.width, over.height);
  pen.lineWidth = 1.5 * r;
  pen.strokeStyle = ink;
  const here = state.chosen >= 0 && plot.data.x[state.chosen] <= LAST ? plot.at(state.chosen) : null;
  if (here) {
    pen.globalAlpha = 0.45;
    pen.beginPath();
    for (const i of state.neighbours) if (plot.data.x[i] <= LAST) { pen.moveTo(...here); pen.lineTo(...plot.at(i)); }
    pen.stroke();
    pen.globalAlpha = 1;
    pen.lineWidth = r;
    for (const i of state.neighbours) ring(pen, i, plot.radius + 2 * r);
  }
  drawNames(pen);
  if (here) { pen.lineWidth = 2.5 * r; ring(pen, state.chosen, plot.radius + 4 * r); }
  if (state.hover >= 0) { pen.lineWidth = 2 * r; ring(pen, state.hover, plot.radius + 3 * r); }
  if (state.keys) {
    const [x, y] = [over.width / 2, over.height / 2];
    pen.lineWidth = r;
    pen.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) { pen.moveTo(x + 5 * r * dx, y + 5 * r * dy); pen.lineTo(x + 14 * r * dx, y + 14 * r * dy); }
    pen.stroke();
  }
}

function ring(pen, i, radius) {
  if (plot.data.x[i] > LAST) return;
  pen.beginPath();
  pen.arc(...plot.at(i), radius, 0, 2 * Math.PI);
  pen.stroke();
}

// ---- names: of the feature that stands out in each part of what is seen

let naming;
let named = [];
async function name() {
  named = $("#map-names").checked ? plot.prominent(plot.data.omega, Math.max(3, Math.round(plot.width / plot.ratio / 125))) : [];
  if (named.length) await know(named);
  drawOver();
}

function drawNames(pen) {
  const r = plot.ratio;
  const taken = [];
  pen.font = `600 ${11 * r}px system-ui, sans-serif`;
  pen.textAlign = "center";
  pen.lineJoin = "round";
  for (const i of [state.chosen, ...named]) {
    const label = i >= 0 && plot.data.x[i] <= LAST && labels.get(i)?.label;
    if (!label) continue;
    const text = label.length > 22 ? `${label.slice(0, 21)}…` : label;
    const [at, y] = plot.at(i);
    const half = pen.measureText(text).width / 2 + 3 * r;
    // A name stays whole at the edge while its point is in view.
    const x = at < 0 || at > plot.width ? at : Math.min(Math.max(at, half), plot.width - half);
    const box = [x - half, y - plot.radius - 18 * r, x + half, y - plot.radius];
    if (taken.some((one) => one[0] < box[2] && box[0] < one[2] && one[1] < box[3] && box[1] < one[3])) continue;
    taken.push(box);
    pen.strokeStyle = halo;
    pen.lineWidth = 3.5 * r;
    pen.strokeText(text, x, box[3] - 5 * r);
    pen.fillStyle = ink;
    pen.fillText(text, x, box[3] - 5 * r);
    pen.strokeStyle = ink;
  }
}

/** Ask for what is not known yet of these features; true where something came. */
async function know(ids) {
  const missing = ids.filter((id) => !labels.has(id)).slice(0, 200);
  if (!missing.length) return false;
  try {
    for (const one of (await api("/features", { ids: missing.join(","), limit: missing.length })).items) labels.set(one.id, one);
  } catch { return false; } // the next time it may answer
  return true;
}

// ---- the view

function readView() {
  const [x, y, zoom] = canvas.dataset.view.split(",").map(Number);
  if ([x, y, zoom].every(Number.isFinite) && zoom > 0) Object.assign(plot, { cx: clamp(x, 0, 1), cy: clamp(y, 0, 1), zoom: clamp(zoom, 1, MOST) });
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** Zoom by `factor` so that the place at (px, py), device pixels, stays where it is. */
function zoomAt(factor, px = plot.width / 2, py = plot.height / 2) {
  const before = plot.scale * LAST;
  plot.zoom = clamp(plot.zoom * factor, 1, MOST);
  const after = plot.scale * LAST;
  pan((px - plot.width / 2) * (1 / before - 1 / after), (py - plot.height / 2) * (1 / before - 1 / after));
}

/** Move the centre by parts of the map. */
function pan(dx, dy) {
  plot.cx = clamp(plot.cx + dx, 0, 1);
  plot.cy = clamp(plot.cy + dy, 0, 1);
  if (state.keys) hover(plot.nearest(plot.width / 2, plot.height / 2, 60 * plot.ratio), true);
  else hover(-1);
  redraw();
  remember();
}

function centre(i, zoom) {
  if (plot.data.x[i] > LAST) return;
  plot.cx = plot.data.x[i] / LAST;
  plot.cy = plot.data.y[i] / LAST;
  plot.zoom = Math.max(plot.zoom, zoom);
}

function home() {
  Object.assign(plot, { cx: 0.5, cy: 0.5, zoom: 1 });
  pan(0, 0);
}

// ---- the address

let later;
function remember() {
  clearTimeout(later);
  later = setTimeout(remembered, 250);
}
function remembered() {
  clearTimeout(later);
  history.replaceState(null, "", address());
}
function address(feature = state.chosen) {
  const view = plot.zoom > 1.001 ? [plot.cx.toFixed(4), plot.cy.toFixed(4), plot.zoom.toFixed(2)].join(",") : "";
  const colour = state.colour === "verdict" ? "" : state.colour;
  return url("/map", { colour, hide: [...state.hide].join(","), q: $("[name=q]").value.trim(), feature: feature >= 0 ? feature : "", view });
}

// ---- what the pointer, a finger or the keys mean

let hovering;
let dwelling;
function hover(i, spoken = false) {
  if (i === state.hover) return;
  state.hover = i;
  clearTimeout(hovering);
  clearTimeout(dwelling);
  drawOver();
  canvas.classList.toggle("on-point", i >= 0);
  if (i < 0) { tip.hidden = true; return; }
  showTip(i);
  hovering = setTimeout(async () => { if (await know([i]) && state.hover === i) showTip(i); if (spoken && state.hover === i) say(tip.textContent); }, 80);
  if (!spoken) dwelling = setTimeout(() => choose(i), 450);
}

function showTip(i) {
  const known = labels.get(i);
  const verdict = VERDICTS[plot.data.verdict[i]];
  const omega = plot.data.omega[i] ? `, ω ${((plot.data.omega[i] - 128) / 127).toFixed(2)}` : "";
  tip.replaceChildren(Object.assign(document.createElement("strong"), { textContent: known ? (known.label ?? "unlabelled") : "…" }), ` #${i} `, Object.assign(document.createElement("small"), { textContent: `${verdict}${omega}` }));
  tip.hidden = false;
  const [x, y] = plot.at(i).map((v) => v / plot.ratio);
  const width = plot.width / plot.ratio;
  const left = clamp(x - tip.offsetWidth / 2, 4, Math.max(4, width - tip.offsetWidth - 4));
  const above = y - tip.offsetHeight - 14;
  tip.style.transform = `translate(${left}px, ${above > 4 ? above : y + 14}px)`;
}

/** The server shows where it fires and its neighbours, beside the map. */
async function choose(i) {
  if (i === state.chosen) return;
  await swap(address(i), "chosen", { push: false });
}

const open = (i, event) => {
  remembered(); // so that going back finds the map as it was left
  const to = url(`/features/${i}`);
  if (event.metaKey || event.ctrlKey) globalThis.open(to, "_blank", "noopener"); else location.assign(to);
};

const place = (event) => {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * plot.ratio, (event.clientY - box.top) * plot.ratio];
};
const under = (event, reach = NEAR) => plot.nearest(...place(event), reach * plot.ratio);

const fingers = new Map();
let moved = 0;
canvas.addEventListener("pointerdown", (event) => {
  if (!plot || event.button > 0) return;
  state.keys = false;
  canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, place(event));
  if (fingers.size === 1) moved = 0;
});
canvas.addEventListener("pointermove", (event) => {
  if (!plot) return;
  const before = fingers.get(event.pointerId);
  if (!before) { if (event.pointerType === "mouse") hover(under(event)); return; }
  const now = place(event);
  const step = [now[0] - before[0], now[1] - before[1]];
  moved += Math.hypot(...step);
  if (moved < 4 * plot.ratio) return; // a hand that shakes is no drag
  const per = plot.scale * LAST;
  if (fingers.size === 1) pan(-step[0] / per, -step[1] / per);
  else {
    const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, where]) => where);
    const apart = (a) => Math.max(1, Math.hypot(a[0] - other[0], a[1] - other[1]));
    pan(-step[0] / 2 / per, -step[1] / 2 / per);
    zoomAt(apart(now) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  }
  fingers.set(event.pointerId, now);
});
const lift = (event) => {
  if (!fingers.delete(event.pointerId) || event.type !== "pointerup" || moved >= 4 * plot.ratio || fingers.size) return;
  const touch = event.pointerType !== "mouse";
  const i = under(event, touch ? 24 : NEAR);
  if (i < 0) { hover(-1); return; }
  if (touch && i !== state.hover) { hover(i); return; } // a first tap shows which it is, a second opens it
  open(i, event);
};
for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, lift);
canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse" && !fingers.size) hover(-1); });
canvas.addEventListener("wheel", (event) => {
  if (!plot) return;
  event.preventDefault();
  const lines = event.deltaMode === 1 ? 16 : 1;
  zoomAt(2 ** (-clamp(event.deltaY * lines, -240, 240) / 240), ...place(event));
}, { passive: false });

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
canvas.addEventListener("keydown", (event) => {
  if (!plot || event.metaKey || event.ctrlKey || event.altKey) return;
  const move = MOVES[event.key];
  const factor = { "+": 1.5, "=": 1.5, "-": 1 / 1.5, "−": 1 / 1.5 }[event.key];
  if (!move && !factor && !["0", "Enter"].includes(event.key)) return;
  event.preventDefault();
  const far = (event.shiftKey ? 0.4 : 0.08) / plot.zoom;
  state.keys = true;
  if (move) pan(move[0] * far, move[1] * far);
  else if (factor) zoomAt(factor);
  else if (event.key === "0") home();
  else if (state.hover >= 0) open(state.hover, event);
});
canvas.addEventListener("focus", () => {
  if (!plot || !canvas.matches(":focus-visible")) return;
  state.keys = true;
  pan(0, 0);
});
canvas.addEventListener("blur", () => { if (plot && state.keys) { state.keys = false; hover(-1); drawOver(); } });

// ---- controls

document.addEventListener("click", (event) => {
  if (!plot || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const zoom = event.target.closest("[data-zoom]");
  if (zoom) { if (Number(zoom.dataset.zoom)) zoomAt(Number(zoom.dataset.zoom)); else home(); return; }
  const colour = event.target.closest("a[data-colour]");
  if (colour) {
    event.preventDefault();
    state.colour = colour.dataset.colour;
    for (const one of $$("a[data-colour]")) if (one === colour) one.setAttribute("aria-current", "true"); else one.removeAttribute("aria-current");
    $("[name=colour]").value = state.colour;
    recolour();
    redraw();
    remember();
  }
  const kind = event.target.closest("button[data-verdict]");
  if (kind) {
    const { verdict } = kind.dataset;
    const shown = state.hide.delete(verdict);
    if (!shown) state.hide.add(verdict);
    kind.setAttribute("aria-pressed", shown);
    recolour();
    redraw();
    remember();
    say(`${plot.order.length} features shown`);
  }
});
$("#map-names").addEventListener("change", () => plot && name());

// A feature in a list beside the map: show where it is.
for (const type of ["pointerover", "pointerout", "focusin", "focusout"]) document.addEventListener(type, (event) => {
  const one = plot && event.target.closest?.(".map-list [data-feature]");
  if (!one || plot.data.x[one.dataset.feature] > LAST) return;
  state.hover = type === "pointerover" || type === "focusin" ? Number(one.dataset.feature) : -1;
  drawOver();
});

document.addEventListener("swap", (event) => {
  if (!plot) return;
  if (event.target.id === "found") readMarks();
  if (event.target.id === "chosen") readChosen();
  redraw();
  remembered();
});

function readMarks() {
  const ids = $("#found").dataset.ids.split(",").filter(Boolean).map(Number);
  plot.marked = null;
  if (ids.length) { plot.marked = new Uint8Array(plot.data.n); for (const id of ids) plot.marked[id] = 1; }
}

function readChosen() {
  const { feature, neighbours } = $("#chosen").dataset;
  state.chosen = feature === undefined ? -1 : Number(feature);
  state.neighbours = neighbours ? neighbours.split(",").map(Number) : [];
  if (state.chosen >= 0) know([state.chosen]).then((came) => came && drawOver());
}

load();

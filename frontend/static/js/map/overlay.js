// The map's state, its colours, and what is drawn over the points: rings, lines, names and the tooltip.
import { $, api, nameOf } from "../dom.js";
import { LAST, mix, quantile, rgba } from "./points.js";

export const canvas = $("#map");
const overlay = $("#map-over");
const tip = $("#map-tip");
export const VERDICTS = canvas.dataset.verdicts.split(",");
const DRAWING_ORDER = ["rare", "image-only", "text-only", "mostly-image", "mostly-text", "unpaired", "weakly-paired", "in-context", "cross-modal"]; // later ones are on top

export const state = {
  plot: null, // a Plot, once the map is loaded
  colour: canvas.dataset.colour,
  hide: new Set(canvas.dataset.hide.split(",").filter(Boolean)),
  hover: -1, // feature under the pointer; -1 for none
  chosen: -1, // selected feature; -1 for none
  neighbours: [], // of the selected feature
  keys: false, // whether the keyboard moves the map
};
const labels = new Map(); // feature → {label, verdict, …}, filled as names are needed

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const isOnMap = (i) => i >= 0 && state.plot.data.x[i] <= LAST;
const omegaOf = (byte) => ((byte - 128) / 127).toFixed(2);
const densityOf = (byte) => `${Number((100 * 10 ** (6 * ((byte - 1) / 254 - 1))).toPrecision(2))} %`;

// ---- colours

const probe = document.body.appendChild(Object.assign(document.createElement("span"), { hidden: true }));
let ground; // colour behind the points
let ink;
let halo;

/** A colour of tokens.css in the current theme. */
function token(name) {
  probe.style.color = `var(--${name})`;
  return rgba(...getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number));
}
const css = (colour) => `rgb(${colour & 255} ${(colour >> 8) & 255} ${(colour >> 16) & 255})`;

/** Colour the points by verdict, ω or density, and leave out the hidden verdicts. */
export function recolour() {
  const { plot, colour } = state;
  const { data, shade, table } = plot;
  const visible = VERDICTS.map((name) => !state.hide.has(name));
  ground = token("surface");
  ink = css(token("ink"));
  halo = css(ground);
  const ramp = $("#map-ramp");
  ramp.hidden = colour === "verdict";
  canvas.closest(".panel").classList.toggle("by-figure", !ramp.hidden);
  if (colour === "verdict") {
    const order = VERDICTS.map((name) => Math.max(0, DRAWING_ORDER.indexOf(name)));
    VERDICTS.forEach((name, v) => { if (name !== "dead") table[v] = token(`map-${name}`); });
    shade.set(data.verdict);
    plot.level = data.verdict.map((v) => order[v]);
  } else {
    const values = data[colour];
    const low = quantile(values, 0.02);
    const high = Math.max(low + 1, quantile(values, 0.98));
    const stops = [1, 2, 3, 4, 5].map((k) => token(`ramp-${k}`));
    table[0] = token("map-none");
    for (let value = 1; value < 256; value++) {
      const position = 4 * clamp((value - low) / (high - low), 0, 1);
      const stop = Math.min(3, Math.floor(position));
      table[value] = mix(stops[stop], stops[stop + 1], position - stop);
    }
    shade.set(values);
    plot.level = values;
    const text = colour === "omega" ? omegaOf : densityOf;
    $("[data-low]", ramp).textContent = `${colour === "omega" ? "ω" : "density"} ${text(low)} or less`;
    $("[data-high]", ramp).textContent = `${text(high)} or more`;
    $("[data-none]", ramp).textContent = colour === "omega" ? "no ω" : "none";
  }
  plot.select((i) => visible[data.verdict[i]], plot.level);
}

// ---- drawing

let frame = 0;
export function redraw() {
  frame ||= requestAnimationFrame(() => { frame = 0; draw(); });
}

export function draw() {
  state.plot.draw(ground);
  drawOverlay();
  clearTimeout(naming);
  naming = setTimeout(nameFeatures, 160);
}

/** Resize points and overlay to the space on the page. */
export function fit() {
  const { width, height } = canvas.parentElement.getBoundingClientRect();
  state.plot.resize(width, height);
  overlay.width = state.plot.width;
  overlay.height = state.plot.height;
  redraw();
}

/** Rings, lines and names over the points. */
export function drawOverlay() {
  const pen = overlay.getContext("2d");
  const { plot, chosen, neighbours, hover } = state;
  const r = plot.ratio;
  pen.clearRect(0, 0, overlay.width, overlay.height);
  pen.lineWidth = 1.5 * r;
  pen.strokeStyle = ink;
  const here = isOnMap(chosen) ? plot.at(chosen) : null;
  if (here) {
    pen.globalAlpha = 0.45;
    pen.beginPath();
    for (const i of neighbours) if (isOnMap(i)) { pen.moveTo(...here); pen.lineTo(...plot.at(i)); }
    pen.stroke();
    pen.globalAlpha = 1;
    pen.lineWidth = r;
    for (const i of neighbours) ring(pen, i, plot.radius + 2 * r);
  }
  drawNames(pen);
  if (here) { pen.lineWidth = 2.5 * r; ring(pen, chosen, plot.radius + 4 * r); }
  if (hover >= 0) { pen.lineWidth = 2 * r; ring(pen, hover, plot.radius + 3 * r); }
  if (state.keys) crosshair(pen, overlay.width / 2, overlay.height / 2, r);
}

function ring(pen, i, radius) {
  if (!isOnMap(i)) return;
  pen.beginPath();
  pen.arc(...state.plot.at(i), radius, 0, 2 * Math.PI);
  pen.stroke();
}

function crosshair(pen, x, y, r) {
  pen.lineWidth = r;
  pen.beginPath();
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) { pen.moveTo(x + 5 * r * dx, y + 5 * r * dy); pen.lineTo(x + 14 * r * dx, y + 14 * r * dy); }
  pen.stroke();
}

// ---- names: of the most prominent feature in each part of the visible map

let naming;
let named = [];
export async function nameFeatures() {
  const { plot } = state;
  named = $("#map-names").checked ? plot.prominent(plot.data.omega, Math.max(3, Math.round(plot.width / plot.ratio / 125))) : [];
  if (named.length) await fetchLabels(named);
  drawOverlay();
}

function drawNames(pen) {
  const { plot } = state;
  const r = plot.ratio;
  const boxes = []; // of the names drawn so far: names do not overlap
  pen.font = `600 ${11 * r}px system-ui, sans-serif`;
  pen.textAlign = "center";
  pen.lineJoin = "round";
  for (const i of [state.chosen, ...named]) {
    const known = isOnMap(i) && labels.get(i);
    if (!known?.label) continue;
    const label = nameOf(known).text;
    const text = label.length > 22 ? `${label.slice(0, 21)}…` : label;
    const [at, y] = plot.at(i);
    const half = pen.measureText(text).width / 2 + 3 * r;
    // A name is not cut off at the edge while its point is visible.
    const x = at < 0 || at > plot.width ? at : Math.min(Math.max(at, half), plot.width - half);
    const box = [x - half, y - plot.radius - 18 * r, x + half, y - plot.radius];
    if (boxes.some((one) => one[0] < box[2] && box[0] < one[2] && one[1] < box[3] && box[1] < one[3])) continue;
    boxes.push(box);
    pen.strokeStyle = halo;
    pen.lineWidth = 3.5 * r;
    pen.strokeText(text, x, box[3] - 5 * r);
    pen.fillStyle = ink;
    pen.fillText(text, x, box[3] - 5 * r);
    pen.strokeStyle = ink;
  }
}

/** Fetch the labels of those features that have none yet; true if any came. */
export async function fetchLabels(ids) {
  const missing = ids.filter((id) => !labels.has(id)).slice(0, 200);
  if (!missing.length) return false;
  try {
    for (const one of (await api("/features", { ids: missing.join(","), limit: missing.length })).items) labels.set(one.id, one);
  } catch { return false; } // fetched again at the next draw
  return true;
}

// ---- the tooltip

/** Show the feature in a tooltip at its point, and return the text. */
export function showTip(i) {
  const { plot } = state;
  const known = labels.get(i);
  const omega = plot.data.omega[i] ? `, ω ${omegaOf(plot.data.omega[i])}` : "";
  tip.replaceChildren(
    Object.assign(document.createElement("strong"), { textContent: known ? nameOf(known).text : "…" }), ` #${i} `,
    Object.assign(document.createElement("small"), { textContent: `${VERDICTS[plot.data.verdict[i]]}${omega}` }),
  );
  tip.hidden = false;
  const [x, y] = plot.at(i).map((v) => v / plot.ratio);
  const left = clamp(x - tip.offsetWidth / 2, 4, Math.max(4, plot.width / plot.ratio - tip.offsetWidth - 4));
  const above = y - tip.offsetHeight - 14;
  tip.style.transform = `translate(${left}px, ${above > 4 ? above : y + 14}px)`;
  return tip.textContent;
}

export function hideTip() {
  tip.hidden = true;
}

// The map's state, and what is drawn over the points: the area, rings, lines, names and the tooltip.
import { $ } from "../dom.js";
import { FILES, canvas } from "./canvas.js";
import { features } from "./features.js";
import { LAST, rgba } from "./points.js";
import { samples } from "./samples.js";

/** What the points are: features, or samples. All else of the map is the same for both. */
export const kind = canvas.dataset.of === "samples" ? samples : features;

const overlay = $("#map-over");
const tip = $("#map-tip");

export const state = {
  plot: null, // a Plot, once the map is loaded
  colour: canvas.dataset.colour,
  layout: canvas.dataset.layout,
  hide: new Set(canvas.dataset.hide?.split(",").filter(Boolean)), // verdicts
  hover: -1, // point under the pointer; -1 for none
  lost: -1, // the same, where what the API says of it did not come
  chosen: -1, // point in the panel beside the map; -1 for none
  pinned: -1, // the same, where it was clicked: the address has it; -1 for none
  neighbours: [], // of the one in the panel
  keys: false, // whether the keyboard moves from point to point
  sample: canvas.dataset.sample, // id of the sample by whose features the points may be coloured
  values: null, // bytes of a colour that does not come with the map
  area: [], // corners of the chosen area, [x, y] in the units of map.bin
};
export const labels = new Map(); // point → what the API says of it, filled as names are needed

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const isOnMap = (i) => i >= 0 && state.plot.data.x[i] <= LAST;

// ---- colours

const probe = document.body.appendChild(Object.assign(document.createElement("span"), { hidden: true }));
probe.style.forcedColorAdjust = "none"; // the points keep their colours where the system chooses all others
let ground; // colour behind the points
let ink;
let halo;

/** A colour of tokens.css in the current theme. */
export function token(name) {
  probe.style.color = `var(--${name})`;
  return rgba(...getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number));
}
const css = (colour) => `rgb(${colour & 255} ${(colour >> 8) & 255} ${(colour >> 16) & 255})`;

/** Take over the theme's colours of paper and ink. */
export function setPens() {
  ground = token("surface");
  ink = css(token("ink"));
  halo = css(ground);
}

// ---- drawing

let frame = 0;
export function redraw() {
  frame ||= requestAnimationFrame(() => { frame = 0; draw(true); });
}

export function draw(moving = false) {
  state.plot.draw(ground, moving);
  drawOverlay();
  clearTimeout(naming);
  naming = setTimeout(drawFinely, 160);
}

function drawFinely() {
  if (state.plot.rough) state.plot.draw(ground);
  nameFeatures();
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
  drawArea(pen, r);
  pen.lineWidth = 1.5 * r;
  pen.strokeStyle = ink;
  const chosenAt = isOnMap(chosen) ? plot.at(chosen) : null;
  if (chosenAt) {
    pen.globalAlpha = 0.45;
    pen.beginPath();
    for (const i of neighbours) if (isOnMap(i)) { pen.moveTo(...chosenAt); pen.lineTo(...plot.at(i)); }
    pen.stroke();
    pen.globalAlpha = 1;
    pen.lineWidth = r;
    for (const i of neighbours) ring(pen, i, plot.radius + 2 * r);
  }
  drawNames(pen);
  if (chosenAt) { pen.lineWidth = 2.5 * r; ring(pen, chosen, plot.radius + 4 * r); }
  if (isOnMap(hover)) { pen.lineWidth = 2 * r; ring(pen, hover, plot.radius + 3 * r); pointAt(pen, ...plot.at(hover), r); }
}

function drawArea(pen, r) {
  if (state.area.length < 2) return;
  pen.beginPath();
  for (const corner of state.area) pen.lineTo(...state.plot.place(...corner));
  pen.closePath();
  pen.fillStyle = pen.strokeStyle = ink;
  pen.globalAlpha = 0.08;
  pen.fill();
  pen.globalAlpha = 1;
  pen.lineWidth = 1.5 * r;
  pen.setLineDash([6 * r, 4 * r]);
  pen.stroke();
  pen.setLineDash([]);
}

function ring(pen, i, radius) {
  if (!isOnMap(i)) return;
  pen.beginPath();
  pen.arc(...state.plot.at(i), radius, 0, 2 * Math.PI);
  pen.stroke();
}

/** An arrow at the edge towards a point that is outside of the view. */
function pointAt(pen, x, y, r) {
  const { width, height } = overlay;
  if (x >= 0 && y >= 0 && x <= width && y <= height) return;
  pen.save();
  pen.translate(clamp(x, 14 * r, width - 14 * r), clamp(y, 14 * r, height - 14 * r));
  pen.rotate(Math.atan2(y - height / 2, x - width / 2));
  pen.beginPath();
  for (const corner of [[10, 0], [-8, -8], [-8, 8]]) pen.lineTo(corner[0] * r, corner[1] * r);
  pen.closePath();
  pen.fillStyle = ink;
  pen.fill();
  pen.restore();
}

// ---- names, or images: of the most prominent point in each part of the visible map

const IMAGE = 48; // pixels of a side
let naming;
let namedPoints = [];
export async function nameFeatures() {
  const { plot } = state;
  if (FILES) await fetchLabels(plot.order);
  namedPoints = $("#map-names").checked ? plot.prominent(kind.rank(plot.data, labels), Math.max(3, Math.round(plot.width / plot.ratio / 125))) : [];
  if (namedPoints.length) await fetchLabels(namedPoints);
  drawOverlay();
}

function drawNames(pen) {
  const { plot } = state;
  const r = plot.ratio;
  const boxes = []; // of the names drawn so far: names do not overlap
  pen.font = `600 ${12 * r}px system-ui, sans-serif`;
  pen.textAlign = "center";
  pen.lineJoin = "round";
  for (const i of [state.chosen, ...namedPoints]) {
    const details = isOnMap(i) && labels.get(i);
    const label = details && kind.title(details);
    const image = details && kind.image(details, drawSoon);
    if (!label && !image) continue;
    const text = label.length > 22 ? `${label.slice(0, 21)}…` : label;
    const [at, y] = plot.at(i);
    const half = image ? IMAGE / 2 * r : pen.measureText(text).width / 2 + 3 * r;
    // A name is not cut off at the edge while its point is visible.
    const x = at < 0 || at > plot.width ? at : Math.min(Math.max(at, half), plot.width - half);
    const box = [x - half, y - plot.radius - (image ? IMAGE : 18) * r, x + half, y - plot.radius];
    if (boxes.some((other) => other[0] < box[2] && box[0] < other[2] && other[1] < box[3] && box[1] < other[3])) continue;
    boxes.push(box);
    if (image) { drawImage(pen, image, box, r); continue; }
    pen.strokeStyle = halo;
    pen.lineWidth = 5 * r;
    pen.strokeText(text, x, box[3] - 5 * r);
    pen.fillStyle = ink;
    pen.fillText(text, x, box[3] - 5 * r);
    pen.strokeStyle = ink;
  }
}

/** The middle of an image as a square with an edge. */
function drawImage(pen, image, [left, top, right, bottom], r) {
  const side = Math.min(image.naturalWidth, image.naturalHeight);
  pen.fillStyle = halo;
  pen.fillRect(left, top, right - left, bottom - top);
  const edge = 2 * r;
  pen.lineWidth = r;
  pen.globalAlpha = 0.5;
  pen.strokeRect(left, top, right - left, bottom - top);
  pen.globalAlpha = 1;
  pen.drawImage(
    image, (image.naturalWidth - side) / 2, (image.naturalHeight - side) / 2, side, side,
    left + edge, top + edge, right - left - 2 * edge, bottom - top - 2 * edge,
  );
}

let overlayFrame = 0;
const drawSoon = () => { overlayFrame ||= requestAnimationFrame(() => { overlayFrame = 0; drawOverlay(); }); };

/** Fetch what the API says of those points of which it is not known yet; true if any came. */
export async function fetchLabels(ids) {
  const idsToFetch = ids.filter((id) => !labels.has(id)).slice(0, 200);
  if (!idsToFetch.length) return false;
  try {
    if (FILES && labels.size) return false; // the file has been read, and has no others
    for (const item of await kind.fetch(idsToFetch)) labels.set(kind.idOf(item), item);
  } catch { return false; } // fetched again at the next draw
  return true;
}

// ---- the tooltip

/** Show what is known of a point in a tooltip beside it, and return the text. */
export function showTip(i) {
  const { plot } = state;
  tip.replaceChildren(...kind.tip(i, labels.get(i), plot.data, state.lost === i));
  tip.hidden = false;
  const [x, y] = plot.at(i).map((v) => v / plot.ratio);
  const left = clamp(x - tip.offsetWidth / 2, 4, Math.max(4, plot.width / plot.ratio - tip.offsetWidth - 4));
  const topAbove = y - tip.offsetHeight - 14;
  tip.style.transform = `translate(${left}px, ${topAbove > 4 ? topAbove : y + 14}px)`;
  return tip.textContent;
}

export function hideTip() {
  tip.hidden = true;
}

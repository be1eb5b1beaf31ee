// What the points are coloured by: verdict, ω and density come with the map, the other figures when first chosen.
import { $, problem, url } from "../dom.js";
import { FILES, VERDICTS, canvas, clamp, setPens, state, token } from "./overlay.js";
import { mix, quantile } from "./points.js";

const DRAWING_ORDER = ["rare", "image-only", "text-only", "mostly-image", "mostly-text", "unpaired", "weakly-paired", "in-context", "cross-modal"]; // later ones are on top
const FAMILY = ["cross-modal", "text-only", "image-only", "in-context", "weakly-paired", "mostly-text", "mostly-image", "unpaired"]; // eight colours that differ
const PLACE = ["cross-modal", "text-only", "image-only"]; // patch, row, column
const omegaOf = (byte) => ((byte - 128) / 127).toFixed(2);
const shareOf = (byte) => ((byte - 1) / 254).toFixed(2);
const percentOf = (byte) => `${Math.round((100 * (byte - 1)) / 254)} %`;
const densityOf = (byte) => `${Number((100 * 10 ** (6 * ((byte - 1) / 254 - 1))).toPrecision(2))} %`;
const FIGURES = { // name, value as text, text for none
  omega: ["ω", omegaOf, "no ω"],
  density: ["density", densityOf, "none"],
  agreement: ["agreement", shareOf, "no agreement"],
  label_score: ["name score", shareOf, "no score"],
  sample: ["share of p99.9", percentOf, "not in this sample"],
};

const columns = new Map(); // name → Uint8Array [F]

/** The bytes of a colour that does not come with the map. */
async function column(name) {
  const key = name === "sample" ? `sample ${state.sample}` : name;
  if (!columns.has(key)) {
    const sample = name === "sample" ? state.sample : "";
    const response = await fetch(FILES ? `${FILES}${name}.bin` : url("/api/v1/map/colours", { by: name, sample, v: canvas.dataset.version }));
    if (!response.ok) throw new Error(await problem(response));
    columns.set(key, new Uint8Array(await response.arrayBuffer()));
  }
  return columns.get(key);
}

/** Fetch what the chosen colour needs; true if that could be done. */
export async function prepare() {
  const problemLine = $("#map-problem");
  problemLine.hidden = true;
  if (state.colour === "verdict" || state.colour in state.plot.data) return true;
  const wanted = state.colour;
  try {
    const values = await column(wanted);
    if (values.length !== state.plot.data.n) throw new Error("The server's reply has another number of features.");
    if (state.colour === wanted) state.values = values;
    return state.colour === wanted;
  } catch (error) {
    problemLine.hidden = false;
    problemLine.textContent = error instanceof TypeError ? "The server cannot be reached, so the colours stay as they are." : error.message;
    return false;
  }
}

/** Colour the points, and leave out the hidden verdicts. */
export function recolour() {
  const { plot, colour } = state;
  const { data } = plot;
  const visible = VERDICTS.map((name) => !state.hide.has(name));
  setPens();
  for (const legend of document.querySelectorAll("[data-legend]")) legend.hidden = legend.dataset.legend !== (colour in FIGURES ? "figure" : colour);
  canvas.closest(".panel").classList.toggle("by-figure", colour !== "verdict");
  const values = data[colour] ?? state.values;
  if (colour === "verdict") byVerdict(plot);
  else if (colour === "family") byKind(plot, values, FAMILY);
  else if (colour === "place") byKind(plot, values, PLACE);
  else byFigure(plot, values, ...FIGURES[colour]);
  plot.select((i) => visible[data.verdict[i]], plot.level);
}

function byVerdict({ table, shade, data }, order = VERDICTS.map((name) => Math.max(0, DRAWING_ORDER.indexOf(name)))) {
  VERDICTS.forEach((name, v) => { if (name !== "dead") table[v] = token(`map-${name}`); });
  shade.set(data.verdict);
  state.plot.level = data.verdict.map((v) => order[v]);
}

function byKind(plot, values, names) {
  plot.table[0] = token("map-none");
  names.forEach((name, k) => { plot.table[k + 1] = token(`map-${name}`); });
  plot.shade.set(values);
  plot.level = values.map((value) => (value ? 1 : 0));
}

function byFigure(plot, values, name, text, none) {
  const low = quantile(values, 0.02);
  const high = Math.max(low + 1, quantile(values, 0.98));
  const stops = [1, 2, 3, 4, 5].map((k) => token(`ramp-${k}`));
  plot.table[0] = token("map-none");
  for (let value = 1; value < 256; value++) {
    const position = 4 * clamp((value - low) / (high - low), 0, 1);
    const stop = Math.min(3, Math.floor(position));
    plot.table[value] = mix(stops[stop], stops[stop + 1], position - stop);
  }
  plot.shade.set(values);
  plot.level = values;
  const ramp = $("#map-ramp");
  $("[data-low]", ramp).textContent = `${name} ${text(low)} or less`;
  $("[data-high]", ramp).textContent = `${text(high)} or more`;
  $("[data-none]", ramp).textContent = none;
}

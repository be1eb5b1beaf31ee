// What the points are coloured by: some figures come with the map, the others when first chosen.
import { $, ask } from "../dom.js";
import { canvas } from "./canvas.js";
import { clamp, kind, setPens, state, token } from "./overlay.js";
import { mix, quantile } from "./points.js";

const columns = new Map(); // address → Uint8Array [n]

/** The bytes of a colour that does not come with the map. */
async function column(name) {
  const address = kind.column(name, { sample: state.sample, version: canvas.dataset.version });
  if (!columns.has(address)) columns.set(address, new Uint8Array(await (await ask(address)).arrayBuffer()));
  return columns.get(address);
}

/** Do what needs the server; true if that could be done. Otherwise a line below the map says why. */
export async function attempt(task) {
  const line = $("#map-problem");
  line.hidden = true;
  try {
    return await task();
  } catch (error) {
    line.hidden = false;
    line.textContent = error instanceof TypeError ? "The server cannot be reached, so the map stays as it is." : error.message;
    return false;
  }
}

/** Fetch what the chosen colour needs; true if that could be done. */
export const prepare = () => attempt(async () => {
  const colour = state.colour;
  if (colour in state.plot.data) return true;
  const values = await column(colour);
  if (values.length !== state.plot.data.n) throw new Error(`The server's reply has another number of ${kind.noun}s.`);
  if (state.colour === colour) state.values = values;
  return state.colour === colour;
});

/** Colour the points, and leave out the hidden ones. */
export function recolour() {
  const { plot, colour } = state;
  const { data } = plot;
  setPens();
  const { legend, figure, names, levels } = kind.drawing(colour);
  for (const element of document.querySelectorAll("[data-legend]")) element.hidden = element.dataset.legend !== legend;
  canvas.closest(".panel").classList.toggle("by-figure", colour !== "verdict");
  const values = data[colour] ?? state.values ?? new Uint8Array(data.n);
  if (figure) byFigure(plot, values, ...figure);
  else byKind(plot, values, names, levels);
  plot.select(kind.visible(data, state.hide), plot.level);
}

function byKind(plot, values, names, levels) {
  names.forEach((name, k) => { plot.table[k] = token(`map-${name ?? "none"}`); });
  plot.shade.set(values);
  plot.level = values.map((value) => (levels ? levels[value] : value ? 1 : 0));
}

function byFigure(plot, values, name, text, none, least) {
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
  $("[data-low]", ramp).textContent = `${name} ${text(low)}${low === least ? "" : " or less"}`;
  $("[data-high]", ramp).textContent = `${text(high)} or more`;
  $("[data-none]", ramp).textContent = none;
}

// The map page: load the map and connect the controls beside it. The state (colour, hidden verdicts, words, selected
// feature, view) is in the address; the server renders the results of a search and the selected feature.
import { $, $$, errorMessage, problem, say } from "../dom.js";
import { centre, readView, showAll, updateAddress, updateAddressSoon, zoomAt } from "./input.js";
import { canvas, draw, drawOverlay, fetchLabels, fit, nameFeatures, recolour, redraw, state } from "./overlay.js";
import { LAST, Plot, parse } from "./points.js";

const status = $("#map-state");

async function load() {
  status.hidden = false;
  status.classList.remove("failed");
  status.textContent = "Loading the map …";
  try {
    const response = await fetch(canvas.dataset.url);
    if (!response.ok) throw new Error(await problem(response));
    state.plot = new Plot(canvas, parse(await response.arrayBuffer()));
  } catch (error) {
    const retry = Object.assign(document.createElement("button"), { type: "button", textContent: "Try again", onclick: load });
    status.classList.add("failed");
    status.replaceChildren(`${errorMessage(error)} `, retry);
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
  // Two frames later the points are on the screen.
  requestAnimationFrame(() => requestAnimationFrame(() => { performance.mark("map-drawn"); canvas.dataset.drawn = state.plot.order.length; }));
}

/** Mark the features that the search has returned. */
function readMarks() {
  const { plot } = state;
  const ids = $("#found").dataset.ids.split(",").filter(Boolean).map(Number);
  plot.marked = null;
  if (ids.length) { plot.marked = new Uint8Array(plot.data.n); for (const id of ids) plot.marked[id] = 1; }
}

function readChosen() {
  const { feature, neighbours } = $("#chosen").dataset;
  state.chosen = feature === undefined ? -1 : Number(feature);
  state.neighbours = neighbours ? neighbours.split(",").map(Number) : [];
  if (state.chosen >= 0) fetchLabels([state.chosen]).then((changed) => changed && drawOverlay());
}

function repaint() {
  recolour();
  redraw();
}

const onTheme = () => { if (state.plot) repaint(); };
new MutationObserver(onTheme).observe(document.documentElement, { attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onTheme);

document.addEventListener("click", (event) => {
  if (!state.plot || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const zoom = event.target.closest("[data-zoom]");
  if (zoom) { if (Number(zoom.dataset.zoom)) zoomAt(Number(zoom.dataset.zoom)); else showAll(); return; }
  const colour = event.target.closest("a[data-colour]");
  if (colour) {
    event.preventDefault();
    state.colour = colour.dataset.colour;
    for (const one of $$("a[data-colour]")) if (one === colour) one.setAttribute("aria-current", "true"); else one.removeAttribute("aria-current");
    $("[name=colour]").value = state.colour;
    repaint();
    updateAddressSoon();
  }
  const chip = event.target.closest("button[data-verdict]");
  if (chip) {
    const { verdict } = chip.dataset;
    const visible = state.hide.delete(verdict);
    if (!visible) state.hide.add(verdict);
    chip.setAttribute("aria-pressed", visible);
    repaint();
    updateAddressSoon();
    say(`${state.plot.order.length} features on the map`);
  }
});
$("#map-names").addEventListener("change", () => state.plot && nameFeatures());

// The pointer or focus on a feature in a list beside the map: show where the feature is.
for (const type of ["pointerover", "pointerout", "focusin", "focusout"]) document.addEventListener(type, (event) => {
  const item = state.plot && event.target.closest?.(".map-list [data-feature]");
  if (!item || state.plot.data.x[item.dataset.feature] > LAST) return;
  state.hover = type === "pointerover" || type === "focusin" ? Number(item.dataset.feature) : -1;
  drawOverlay();
});

document.addEventListener("swap", (event) => {
  if (!state.plot) return;
  if (event.target.id === "found") readMarks();
  if (event.target.id === "chosen") readChosen();
  redraw();
  updateAddress();
});

load();

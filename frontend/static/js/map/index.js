// The map page: load the map and connect the controls beside it. The state (colour, hidden verdicts, words, area, pinned
// point, view) is in the address; the server renders the results of a search, the area's list and the pinned feature.
import { swap } from "../app.js";
import { $, $$, ask, errorMessage, say } from "../dom.js";
import { canvas } from "./canvas.js";
import { attempt, prepare, recolour } from "./colours.js";
import { address, centre, hover, readView, showAll, updateAddress, updateAddressSoon, zoomAt } from "./input.js";
import { readArea, toggle } from "./lasso.js";
import { draw, drawOverlay, fetchLabels, fit, kind, nameFeatures, redraw, state } from "./overlay.js";
import { LAST, Plot, parse } from "./points.js";

const status = $("#map-state");

async function load() {
  status.hidden = false;
  status.classList.remove("failed");
  status.textContent = "Loading the map …";
  try {
    state.plot = new Plot(canvas, parse(await (await ask(canvas.dataset.url)).arrayBuffer()));
  } catch (error) {
    const retry = Object.assign(document.createElement("button"), { type: "button", textContent: "Try again", onclick: load });
    status.classList.add("failed");
    status.replaceChildren(`${errorMessage(error)} `, retry);
    return;
  }
  status.hidden = true;
  readChosen();
  readArea();
  const { plot } = state;
  if (!(await prepare())) choose(kind.colour);
  else await readMarks();
  recolour();
  new ResizeObserver(fit).observe(canvas.parentElement);
  fit();
  if (!readView(canvas.dataset.view)) {
    if (state.area.length) plot.fitArea(state.area);
    else if (state.chosen >= 0) centre(state.chosen, 8);
    else if (plot.marked) plot.fit(plot.marked);
  }
  draw();
  if (history.state?.onMap) canvas.focus({ preventScroll: true });
  // Two frames later the points are on the screen.
  requestAnimationFrame(() => requestAnimationFrame(() => { performance.mark("map-drawn"); canvas.dataset.drawn = state.plot.order.length; }));
}

/** Mark what the search has returned. */
const readMarks = () => attempt(async () => {
  const { plot } = state, part = $("#found");
  const marks = await kind.marks(plot.data.n);
  if (part === $("#found")) plot.marked = marks;
});

function readChosen() {
  const { [kind.pinned]: point, neighbours } = $("#chosen").dataset;
  state.chosen = point === undefined ? -1 : Number(point);
  state.pinned = new URLSearchParams(location.search).has(kind.pinned) ? state.chosen : -1;
  state.neighbours = neighbours ? neighbours.split(",").map(Number) : [];
  if (state.chosen >= 0) fetchLabels([state.chosen]).then((isChanged) => isChanged && drawOverlay());
}

/** Mark a colour as the one that the points have. */
function choose(name) {
  state.colour = name;
  for (const link of $$("a[data-colour]")) if (link.dataset.colour === name) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
  for (const field of $$("[name=colour], #map-colour")) field.value = name;
}

async function colourBy(name) {
  const oldColour = state.colour;
  choose(name);
  if (await prepare()) {
    repaint();
    updateAddressSoon();
    if (kind.refilters && state.chosen >= 0) swap(address(state.chosen), "chosen", { history: null, background: true }); // it has the score
  } else if (state.colour === name) choose(oldColour);
}

function repaint() {
  recolour();
  redraw();
}

const onTheme = () => { if (state.plot) repaint(); };
new MutationObserver(onTheme).observe(document.documentElement, { attributeFilter: ["data-theme"] });
for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)", "print"]) matchMedia(query).addEventListener("change", onTheme);

document.addEventListener("click", (event) => {
  if (state.plot && event.target.closest("main a")) updateAddress(); // Back returns to what was seen last
  if (!state.plot || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const zoom = event.target.closest("[data-zoom]");
  if (zoom) { if (Number(zoom.dataset.zoom)) zoomAt(Number(zoom.dataset.zoom)); else showAll(); return; }
  const colour = event.target.closest("a[data-colour]");
  if (colour) {
    event.preventDefault();
    colourBy(colour.dataset.colour);
  }
  const layout = event.target.closest("a[data-layout]");
  if (layout) { event.preventDefault(); location.assign(address(state.pinned, layout.dataset.layout)); return; }
  if (event.target.closest("#map-lasso")) toggle();
  const chip = event.target.closest("button[data-verdict]");
  if (chip) {
    const { verdict } = chip.dataset;
    const isVisible = state.hide.delete(verdict);
    if (!isVisible) state.hide.add(verdict);
    chip.setAttribute("aria-pressed", isVisible);
    repaint();
    updateAddressSoon();
    say(`${state.plot.order.length} features on the map`);
  }
});
$("#map-colour")?.addEventListener("change", (event) => state.plot && colourBy(event.target.value));
$("#map-names").addEventListener("change", () => state.plot && nameFeatures());

// The pointer or focus on an item of a list beside the map: show where it is.
for (const type of ["pointerover", "pointerout", "focusin", "focusout"]) document.addEventListener(type, (event) => {
  const item = state.plot && event.target.closest?.(`.map-list [data-${kind.pinned}]`);
  const point = Number(item?.dataset[kind.pinned] ?? NaN);
  if (!item || state.plot.data.x[point] > LAST) return;
  state.hover = type === "pointerover" || type === "focusin" ? point : -1;
  drawOverlay();
});

document.addEventListener("swap", async (event) => {
  if (!state.plot) return;
  if (event.target.id === "found") {
    await readMarks();
    if (state.plot.marked && !wentBack) { hover(-1); state.plot.fit(state.plot.marked); }
    if (kind.refilters && state.area.length && !wentBack) swap(address(), "area", { history: null, background: true });
  }
  if (event.target.id === "chosen") readChosen();
  if (event.target.id === "area") readArea();
  redraw();
  if (!wentBack) updateAddress();
});

// Back and Forward: app.js fetches the parts again; the view is the address's own.
let wentBack = false;
for (const type of ["pointerdown", "keydown"]) addEventListener(type, () => { wentBack = false; }, true);
addEventListener("popstate", () => {
  if (!state.plot) return;
  wentBack = true;
  hover(-1);
  if (!readView(new URLSearchParams(location.search).get("view") ?? "")) Object.assign(state.plot, { cx: 0.5, cy: 0.5, zoom: 1 });
  redraw();
});

load();

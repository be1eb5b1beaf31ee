// The sample page. The server renders every selected state; this module adds pointing at patches, arrow keys, values where
// one points, and the activations of a feature while the pointer is over its row.
import { swap } from "./app.js";
import { $, $$, api, ask, errorMessage, nameOf, say } from "./dom.js";
import { drawHeat, level } from "./heatmap.js";
import { wirePad } from "./pad.js";

const cache = new Map();

/**
 * @param {Element} stage of the pair: its path is as the server writes it, as some ids are encoded in addresses; one's own pair has a query.
 * @param {string[]} feature numbers
 */
function activations(stage, feature) {
  const { path, query = "{}" } = stage.dataset;
  const { activations: file } = stage.dataset;
  if (file) return fromFile(file, feature.map(Number));
  return once(`${path}\n${query}\n${feature}`, () => api(`${path}/activations`, { ...JSON.parse(query), feature }));
}

/** What `ask` answers, asked for once; again where it failed. */
function once(key, ask) {
  if (!cache.has(key)) {
    const answer = ask();
    answer.catch(() => cache.delete(key));
    cache.set(key, answer);
  }
  return cache.get(key);
}

/** In an exported site a file has the activations of every feature that the page names. */
async function fromFile(path, ids) {
  const file = await once(path, async () => (await ask(path)).json());
  const at = ids.map((id) => file.features.findIndex((feature) => feature.id === id));
  if (at.includes(-1)) throw new Error("This copy does not have the activations of this feature here.");
  const pick = (values) => (values.length ? at.map((i) => values[i]) : values);
  const pickValues = (part) => ({ ...part, values: pick(part.values) });
  return { features: pick(file.features), tokens: file.tokens.map(pickValues), grids: file.grids.map(pickValues) };
}

/** There the address names the feature that is shown, `#f12`. */
async function showPinned() {
  const stage = $("#sample");
  const [, feature] = stage.dataset.activations ? location.hash.match(/^#f(\d+)$/) ?? [] : [];
  if (!feature) return;
  stage.dataset.chosen = feature;
  for (const row of $$(".pick-row")) row.toggleAttribute("aria-current", row.dataset.feature === feature);
  try { paint(stage, await activations(stage, [feature])); } catch (error) { say(errorMessage(error)); }
}

function wire() {
  const stage = $("#sample");
  if (!stage.dataset.path) return; // nothing was read yet
  const views = JSON.parse(stage.dataset.views);
  const base = snapshot(stage);
  let hoveredFeature = null;

  const read = reader(stage);
  for (const frame of $$("[data-image]", stage)) wirePatches(frame, views, read);
  for (const name of ["pointerover", "focusin"]) {
    stage.addEventListener(name, (event) => {
      const token = event.target.closest?.("[data-position]");
      if (token) read({ position: Number(token.dataset.position) }, `“${token.textContent.trim()}”`, name === "focusin");
    });
  }

  const show = async (event) => {
    const name = event.target.closest?.("[data-feature]");
    if (!name || name.dataset.feature === hoveredFeature || stage.dataset.unavailable) return;
    hoveredFeature = name.dataset.feature;
    const feature = hoveredFeature;
    try {
      const answer = await activations(stage, [feature]);
      if (hoveredFeature !== feature) return;
      stage.classList.add("previewing");
      paint(stage, answer);
    } catch (error) {
      $("[data-readout]", stage).textContent = errorMessage(error); // pointing at it again asks again
      say(errorMessage(error));
      if (hoveredFeature === feature) hoveredFeature = null;
    }
  };
  const hide = (event) => {
    if (hoveredFeature === null || event.relatedTarget?.closest?.(`[data-feature="${hoveredFeature}"]`)) return;
    hoveredFeature = null;
    stage.classList.remove("previewing");
    base.restore();
  };
  for (const name of ["pointerover", "focusin"]) stage.addEventListener(name, show);
  for (const name of ["pointerout", "focusout"]) stage.addEventListener(name, hide);
}

/** The server's drawing, restored when the pointer leaves. */
function snapshot(stage) {
  const heats = $$(".heat:not(.marks)", stage).map((svg) => [svg, [...svg.childNodes]]);
  const tokens = $$("[data-position]", stage).map((token) => [token, token.className]);
  return {
    restore() {
      for (const [svg, children] of heats) svg.replaceChildren(...children);
      for (const [token, name] of tokens) token.className = name;
    },
  };
}

/**
 * What shows the values of the chosen features at a place, and says them to a screen reader where one came with the keys.
 * @returns {(place: {position?: number, view?: number, row?: number, col?: number}, name: string, aloud?: boolean) => void}
 */
function reader(stage) {
  const line = $("[data-readout]", stage);
  const chosenIds = stage.dataset.chosen ? stage.dataset.chosen.split(",") : [];
  let latestName = "";
  const write = (text, aloud) => { line.textContent = text; if (aloud) say(text); };
  return async (place, name, aloud = false) => {
    latestName = name;
    if (!chosenIds.length || stage.dataset.unavailable) { write(`${name}: select it to list its features.`, aloud); return; }
    try {
      const { features, tokens, grids } = await activations(stage, chosenIds);
      if (latestName !== name) return;
      const values = place.position === undefined ? grids[place.view].values.map((grid) => grid[place.row][place.col])
        : tokens.find((token) => token.position === place.position)?.values ?? [];
      const parts = features.flatMap((feature, i) => (values[i] > 0 // as `readout` of backend/pages/sample/marks.py
        ? [`${nameOf(feature).text} #${feature.id} ${values[i].toFixed(2)} (${(100 * values[i] / feature.p999).toFixed(0)} % of p99.9)`] : []));
      write(`${name}: ${parts.join(", ") || (features.length > 1 ? "none of these features fires" : "the feature does not fire")}`, aloud);
    } catch (error) {
      write(errorMessage(error), aloud);
    }
  };
}

function paint(stage, answer) {
  const [{ p999, max_text: text, max_image: image }] = answer.features;
  const top = stage.dataset.scale ? { text, image } : { text: p999, image: p999 }; // as `tops` of backend/drawing/heat.py
  for (const frame of $$("[data-image]", stage)) {
    const grid = finest(answer.grids.filter((view) => view.image === Number(frame.dataset.image)));
    if (grid) drawHeat($(".heat:not(.marks)", frame), grid, grid.values[0], top.image);
  }
  for (const token of $$("[data-position]", stage)) {
    const answerToken = answer.tokens.find((t) => t.position === Number(token.dataset.position));
    const k = level(answerToken?.values[0], top.text);
    token.className = k ? `tok a${k}` : "tok";
  }
}

/** The view with the smallest patches in which the feature fires, as `finest` of backend/drawing/heat.py. */
function finest(grids) {
  const withPatches = grids.filter((grid) => grid.rows && grid.cols);
  const withValues = withPatches.filter((grid) => grid.values[0].some((row) => row.some((value) => value > 0)));
  const edge = (grid) => (grid.box[2] - grid.box[0]) / grid.cols;
  return (withValues.length ? withValues : withPatches).reduce((finestGrid, grid) => (finestGrid && edge(finestGrid) <= edge(grid) ? finestGrid : grid), null);
}

/** Let a patch be read, and chosen to list its features. @param {Element} frame the image with its layers */
function wirePatches(frame, views, read) {
  const pad = $(".pad", frame);
  const params = new URLSearchParams(location.search);
  const go = ([view, row, col]) => {
    if ($("#sample").dataset.activations) return;
    pad.focus({ preventScroll: true });
    const to = new URL(location.href);
    to.searchParams.delete("position");
    for (const [name, value] of Object.entries({ view, row, col })) to.searchParams.set(name, value);
    swap(to.href, "sample");
  };
  const patchOf = wirePad(frame, views, Number(frame.dataset.image), {
    at: params.has("row") ? ["view", "row", "col"].map((name) => Number(params.get(name))) : null,
    mark: ([view, row, col], aloud) => read({ view, row, col }, `row ${row}, column ${col}`, aloud),
    choose: go,
  });
  pad.addEventListener("click", (event) => { const patch = patchOf?.(event); if (patch) go(patch); });
}

await showPinned();
addEventListener("hashchange", () => { if ($("#sample").dataset.activations) location.reload(); });
wire();
const chosenOf = (stage) => stage.dataset.chosen?.split(",") ?? [];
let numbers = chosenOf($("#sample"));
document.addEventListener("swap", (event) => {
  const stage = $("#sample");
  if (!event.target.contains(stage)) return;
  wire();
  const oldNumbers = numbers;
  const { dataset } = stage;
  numbers = chosenOf(stage);
  const droppedNumber = oldNumbers.find((number) => !numbers.includes(number));
  if (oldNumbers.length < 5 || numbers.length < 5 || !droppedNumber) return;
  const text = `At most five features are shown: feature ${droppedNumber} is no longer.`;
  $("[data-readout]", stage).textContent = text;
  dataset.say = dataset.say ? `${text} ${dataset.say}` : text; // said when the swap is done
});

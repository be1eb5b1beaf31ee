// The search page: the heat of its image while a row is pointed at, and patches to choose.
import { query, swap } from "./app.js";
import { $, say } from "./dom.js";
import { imageForm, post } from "./drop.js";
import { wirePad } from "./pad.js";
import { showProgress } from "./progress.js";

showProgress("search", "Searching", "Stopped: nothing was searched. Search again for results.");
imageForm((form) => {
  if ($("input[type=file]", form).files.length) { post(form); return; }
  const to = new URL(form.action);
  for (const [name, value] of new URLSearchParams(query(form))) to.searchParams.set(name === "image_hash" ? "image" : name, value);
  swap(to.href, "search");
});

/** The image of the query: the heat of the row under the pointer, and patches to choose. */
function wire() {
  const stage = $("#query-image");
  if (!stage) return;
  const heat = $(".heat:not(.marks)", stage);
  const ownHeat = [...heat.childNodes];
  const show = (event) => {
    const drawing = $(".heat", event.target.closest?.("[data-testid=result-feature], [data-testid=group]") ?? document.createElement("p"));
    if (drawing) heat.replaceChildren(...[...drawing.childNodes].map((path) => path.cloneNode(true)));
  };
  const hide = (event) => {
    if (!event.relatedTarget?.closest?.("[data-testid=result-feature], [data-testid=group]")) heat.replaceChildren(...ownHeat);
  };
  for (const name of ["pointerover", "focusin"]) $("#results").addEventListener(name, show);
  for (const name of ["pointerout", "focusout"]) $("#results").addEventListener(name, hide);
  const pad = $(".pad", stage);
  const go = (patch) => {
    const to = new URL(location.href);
    to.searchParams.set("patch", patch.join());
    pad.focus({ preventScroll: true });
    swap(to.href, "search");
  };
  const patchOf = wirePad(stage, JSON.parse(stage.dataset.views), 0, {
    at: stage.dataset.patch ? stage.dataset.patch.split(",").map(Number) : null,
    mark: ([, row, column], aloud) => { if (aloud) say(`row ${row}, column ${column}`); },
    choose: go,
  });
  pad.addEventListener("click", (event) => { const patch = patchOf?.(event); if (patch) go(patch); });
}

wire();
document.addEventListener("swap", (event) => { if (event.target.id === "search") wire(); });

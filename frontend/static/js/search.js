// The search page: the heat of its image while a row is pointed at, and patches to choose.
import { query, swap } from "./app.js";
import { $, say } from "./dom.js";
import { imageForm, post } from "./drop.js";
import { drawMark, patchAt } from "./heatmap.js";
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
  const marks = $(".marks", stage);
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
  wirePad(stage, marks, JSON.parse(stage.dataset.views));
}

function wirePad(stage, marks, views) {
  const pad = $(".pad", stage);
  const viewsOfImage = views.flatMap((view, index) => (view.image === 0 && view.rows && view.cols ? [index] : []));
  if (!viewsOfImage.length) return;
  const oldMarks = [...marks.childNodes];
  let at = stage.dataset.patch ? stage.dataset.patch.split(",").map(Number) : null;
  pad.hidden = false;
  const go = ([view, row, col]) => {
    const to = new URL(location.href);
    to.searchParams.set("patch", [view, row, col].join());
    pad.focus({ preventScroll: true });
    return swap(to.href, "search");
  };
  const patchOf = (event) => patchAt(event, pad, marks, views, viewsOfImage);
  pad.addEventListener("pointermove", (event) => { const patch = patchOf(event); if (patch) drawMark(marks, views[patch[0]], patch[1], patch[2]); });
  pad.addEventListener("pointerleave", () => marks.replaceChildren(...oldMarks));
  pad.addEventListener("click", (event) => { const patch = patchOf(event); if (patch) go(patch); });
  pad.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (step) {
      event.preventDefault();
      const [view, row, col] = at ?? [viewsOfImage[0], 0, 0];
      const clamp = (value, size) => Math.min(size - 1, Math.max(0, value));
      at = at ? [view, clamp(row + step[0], views[view].rows), clamp(col + step[1], views[view].cols)] : [view, row, col];
      drawMark(marks, views[at[0]], at[1], at[2]);
      say(`row ${at[1]}, column ${at[2]}`);
    } else if ((event.key === "Enter" || event.key === " ") && at) {
      event.preventDefault();
      go(at);
    }
  });
}

wire();
document.addEventListener("swap", (event) => { if (event.target.id === "search") wire(); });

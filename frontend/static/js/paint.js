// Patches of an image chosen with the pointer or the keys.
import { $, h, say } from "./dom.js";
import { drawMark, patchAt, patchBox } from "./heatmap.js";
import { parse, runs } from "./patches.js";

/** Choose patches of one image with the pointer, or with arrow keys and space. */
export function wirePad(frame, views, field, changed) {
  const pad = $(".pad", frame), marks = $(".marks", frame);
  const image = Number(frame.dataset.image);
  const viewsOfImage = views.flatMap((view, index) => (view.image === image && view.rows && view.cols ? [index] : []));
  if (!viewsOfImage.length) return;
  let patches = parse(field.value);
  let at = null, drawing = null;
  pad.hidden = false;

  const draw = () => {
    const d = [...patches].map((key) => key.split(":").map(Number)).filter(([v]) => viewsOfImage.includes(v))
      .map(([v, row, col]) => { const [x, y, w, height] = patchBox(views[v], row, col); return `M${x} ${y}h${w}v${height}h${-w}z`; }).join("");
    $(".painted", frame).replaceChildren(...(d ? [h("path", { class: "over", d })] : []));
  };
  const set = (patch, on) => {
    const key = patch.join(":");
    if (on === patches.has(key)) return;
    if (on) patches.add(key); else patches.delete(key);
    field.value = runs(patches);
    draw();
    changed();
  };
  const patchOf = (event) => patchAt(event, pad, marks, views, viewsOfImage);
  pad.addEventListener("pointerdown", (event) => {
    const patch = patchOf(event);
    if (!patch) return;
    pad.setPointerCapture(event.pointerId);
    drawing = !patches.has(patch.join(":"));
    set(patch, drawing);
  });
  pad.addEventListener("pointermove", (event) => {
    const patch = patchOf(event);
    if (!patch) return;
    drawMark(marks, views[patch[0]], patch[1], patch[2]);
    if (drawing !== null) set(patch, drawing);
  });
  for (const name of ["pointerup", "pointercancel"]) pad.addEventListener(name, () => { drawing = null; });
  pad.addEventListener("pointerleave", () => marks.replaceChildren());
  pad.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (step) {
      event.preventDefault();
      const [view, row, col] = at ?? [viewsOfImage[0], 0, 0];
      at = at ? [view, clamp(row + step[0], views[view].rows), clamp(col + step[1], views[view].cols)] : [view, row, col];
      drawMark(marks, views[at[0]], at[1], at[2]);
      say(`row ${at[1]}, column ${at[2]}${patches.has(at.join(":")) ? ", chosen" : ""}`);
    } else if ((event.key === " " || event.key === "Enter") && at) {
      event.preventDefault();
      set(at, !patches.has(at.join(":")));
      say(patches.has(at.join(":")) ? "chosen" : "not chosen");
    }
  });
  field.addEventListener("input", () => { patches = parse(field.value); draw(); });
  draw();
}

const clamp = (value, size) => Math.min(size - 1, Math.max(0, value));

// Patches of an image chosen with the pointer or the keys.
import { $, h, say } from "./dom.js";
import { patchBox } from "./heatmap.js";
import { wirePad } from "./pad.js";
import { parse, runs } from "./patches.js";

/** Choose patches of one image with the pointer, or with arrow keys and space. */
export function wirePaint(frame, views, field, changed) {
  const pad = $(".pad", frame);
  let patches = parse(field.value);
  let drawing = null;
  const image = Number(frame.dataset.image);

  const draw = () => {
    const d = [...patches].map((key) => key.split(":").map(Number)).filter(([v]) => views[v]?.image === image && views[v].cols)
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
  const isChosen = (patch) => patches.has(patch.join(":"));
  const patchOf = wirePad(frame, views, image, {
    mark(patch, aloud) {
      if (aloud) say(`row ${patch[1]}, column ${patch[2]}${isChosen(patch) ? ", chosen" : ""}`);
      else if (drawing !== null) set(patch, drawing);
    },
    choose(patch) {
      set(patch, !isChosen(patch));
      say(isChosen(patch) ? "chosen" : "not chosen");
    },
  });
  if (!patchOf) return;
  pad.addEventListener("pointerdown", (event) => {
    const patch = patchOf(event);
    if (!patch) return;
    pad.setPointerCapture(event.pointerId);
    drawing = !isChosen(patch);
    set(patch, drawing);
  });
  for (const name of ["pointerup", "pointercancel"]) pad.addEventListener(name, () => { drawing = null; });
  field.addEventListener("input", () => { patches = parse(field.value); draw(); });
  draw();
}

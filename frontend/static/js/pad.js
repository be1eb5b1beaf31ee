// The pad over an image: the patch under the pointer, and the one that the arrow keys go to.
import { $ } from "./dom.js";
import { drawMark } from "./heatmap.js";

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const clamp = (value, size) => Math.min(size - 1, Math.max(0, value));

/**
 * Mark the patch, [view, row, column], that the pointer or the keys are at.
 * @param {Element} frame with the pad and the marks. @param {object[]} views of all images. @param {number} image whose views count
 * @param {{at?: number[] | null, mark: (patch: number[], aloud: boolean) => void, choose: (patch: number[]) => void}} calls where the
 *   keys begin; what marking does (`aloud` with the keys), what Enter and space do
 * @returns the patch under a pointer event, or null; nothing where the image has no patches
 */
export function wirePad(frame, views, image, { at = null, mark, choose }) {
  const pad = $(".pad", frame), marks = $(".marks", frame);
  const viewsOfImage = views.filter((view) => view.image === image && view.rows && view.cols); // of a long thin image some families make views without patches
  if (!viewsOfImage.length) return undefined;
  const oldMarks = [...marks.childNodes];
  const [, , width, height] = marks.getAttribute("viewBox").split(" ").map(Number);

  const patchOf = (event) => { // of the view with the smallest patches
    const area = pad.getBoundingClientRect();
    const x = ((event.clientX - area.left) / area.width) * width;
    const y = ((event.clientY - area.top) / area.height) * height;
    const holds = viewsOfImage.filter(({ box: [x0, y0, x1, y1] }) => x >= x0 && x < x1 && y >= y0 && y < y1);
    if (!holds.length) return null;
    const size = (view) => (view.box[2] - view.box[0]) / view.cols;
    const view = holds.reduce((a, b) => (size(b) < size(a) ? b : a));
    const [x0, y0, x1, y1] = view.box;
    return [views.indexOf(view), Math.floor(((y - y0) / (y1 - y0)) * view.rows), Math.floor(((x - x0) / (x1 - x0)) * view.cols)];
  };
  const show = (patch, aloud) => {
    drawMark(marks, views[patch[0]], patch[1], patch[2]);
    mark(patch, aloud);
  };

  pad.hidden = false;
  pad.addEventListener("pointermove", (event) => { const patch = patchOf(event); if (patch) show(patch, false); });
  pad.addEventListener("pointerleave", () => marks.replaceChildren(...oldMarks));
  pad.addEventListener("focus", () => { if (at) show(at, true); });
  pad.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return; // Alt + ← is the browser's
    if (step) {
      event.preventDefault();
      at = at ? [at[0], clamp(at[1] + step[0], views[at[0]].rows), clamp(at[2] + step[1], views[at[0]].cols)] : [views.indexOf(viewsOfImage[0]), 0, 0];
      show(at, true);
    } else if ((event.key === "Enter" || event.key === " ") && at) {
      event.preventDefault();
      choose(at);
    }
  });
  return patchOf;
}

// The charts of matched features: arrow keys go from point to point, one of which is in the tab order.
import { $$ } from "./dom.js";

const STEP = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const place = (point) => [Number(point.dataset.x), Number(point.dataset.y)];

document.addEventListener("keydown", (event) => {
  const here = event.target.closest?.(".matched-chart a");
  const step = STEP[event.key];
  if (!here || !step || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const [x, y] = place(here);
  const points = $$("a", here.parentNode);
  const at = points.indexOf(here);
  let next = null;
  let best = Infinity;
  points.forEach((point, i) => {
    const [px, py] = place(point);
    const along = (px - x) * step[0] + (py - y) * step[1];
    const across = Math.abs((px - x) * step[1]) + Math.abs((py - y) * step[0]);
    const after = along > 0 || (along === 0 && across === 0 && (step[0] + step[1]) * (i - at) > 0); // points of one place
    if (after && along + 2 * across < best) { best = along + 2 * across; next = point; }
  });
  if (!next) return;
  here.setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
});

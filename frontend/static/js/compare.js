// The charts of matched features: arrow keys go from point to point, one of which is in the tab order.
import { $$ } from "./dom.js";

const STEP = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const place = (point) => [Number(point.dataset.x), Number(point.dataset.y)];

document.addEventListener("keydown", (event) => {
  const link = event.target.closest?.(".matched-chart a");
  const step = STEP[event.key];
  if (!link || !step || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const [x, y] = place(link);
  const points = $$("a", link.parentNode);
  const at = points.indexOf(link);
  let next = null;
  let leastDistance = Infinity;
  points.forEach((point, i) => {
    const [px, py] = place(point);
    const along = (px - x) * step[0] + (py - y) * step[1];
    const across = Math.abs((px - x) * step[1]) + Math.abs((py - y) * step[0]);
    const isAfter = along > 0 || (along === 0 && across === 0 && (step[0] + step[1]) * (i - at) > 0); // points of one place
    if (isAfter && along + 2 * across < leastDistance) { leastDistance = along + 2 * across; next = point; }
  });
  if (!next) return;
  link.setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
});

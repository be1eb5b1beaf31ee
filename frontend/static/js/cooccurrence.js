// The matrix of families: arrow keys go from cell to cell, one of which is in the tab order.
import { $$ } from "./dom.js";
import "./sideways.js";

const STEP = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const place = (cell) => ["x", "y"].map((name) => Number(cell.querySelector("rect").getAttribute(name)));

document.addEventListener("keydown", (event) => {
  const link = event.target.closest?.(".cells a");
  const step = STEP[event.key];
  if (!link || !step || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const [x, y] = place(link);
  let next = null;
  let leastDistance = Infinity;
  for (const cell of $$("a", link.parentNode)) {
    const [cx, cy] = place(cell);
    const along = (cx - x) * step[0] + (cy - y) * step[1];
    const across = Math.abs((cx - x) * step[1]) + Math.abs((cy - y) * step[0]);
    if (along > 0 && along + 4 * across < leastDistance) { leastDistance = along + 4 * across; next = cell; }
  }
  if (!next) return;
  link.setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
});

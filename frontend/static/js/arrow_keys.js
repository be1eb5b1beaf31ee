// Links of a drawing, one of which is in the tab order: the arrow keys go from it to the nearest one in their direction.
import { $$ } from "./dom.js";

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * @param {string} selector of the links. @param {(link: Element) => number[]} place x and y of one
 * @param {number} weight of the distance across the direction
 */
export function followArrows(selector, place, weight) {
  document.addEventListener("keydown", (event) => {
    const link = event.target.closest?.(selector);
    const step = STEPS[event.key];
    if (!link || !step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const [x, y] = place(link);
    const links = $$("a", link.parentNode);
    const at = links.indexOf(link);
    let next = null;
    let leastDistance = Infinity;
    links.forEach((other, i) => {
      const [ox, oy] = place(other);
      const along = (ox - x) * step[0] + (oy - y) * step[1];
      const across = Math.abs((ox - x) * step[1]) + Math.abs((oy - y) * step[0]);
      const isAfter = along > 0 || (along === 0 && across === 0 && (step[0] + step[1]) * (i - at) > 0); // links of one place
      if (isAfter && along + weight * across < leastDistance) { leastDistance = along + weight * across; next = other; }
    });
    if (!next) return;
    link.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
}

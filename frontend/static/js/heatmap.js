// Activation levels and their SVG paths, by the same rule as backend/drawing/heat.py.
import { h } from "./dom.js";

export const LEVELS = 8;

/** 0 (inactive) … 8 (at or above top). */
export function level(value, top) {
  if (!(value > 0) || !(top > 0)) return 0;
  return Math.min(LEVELS, Math.max(1, Math.ceil((value / top) * LEVELS)));
}

/**
 * Rectangle of a patch in the pixels of its image.
 * @param {{rows: number, cols: number, box: number[]}} view
 */
export function patchBox(view, row, col) {
  const [x0, y0, x1, y1] = view.box;
  const width = (x1 - x0) / view.cols;
  const height = (y1 - y0) / view.rows;
  return [x0 + col * width, y0 + row * height, width, height];
}

const rect = ([x, y, w, height]) => `M${+x.toFixed(2)} ${+y.toFixed(2)}h${+w.toFixed(2)}v${+height.toFixed(2)}h${-w.toFixed(2)}z`;

/** Draw a grid (rows of columns) of one view into an svg: one path per level, so that 2,880 patches cost ten elements. */
export function drawHeat(svg, view, grid, top) {
  const paths = Array.from({ length: LEVELS + 1 }, () => "");
  const strong = (row, col) => level(grid[row]?.[col], top) > LEVELS / 2;
  let edge = "";
  grid.forEach((columns, row) => columns.forEach((value, col) => {
    const k = level(value, top);
    if (!k) return;
    const [x, y, w, height] = patchBox(view, row, col);
    paths[k] += rect([x, y, w, height]);
    if (!strong(row, col)) return;
    if (!strong(row - 1, col)) edge += `M${x} ${y}h${w}`;
    if (!strong(row + 1, col)) edge += `M${x} ${y + height}h${w}`;
    if (!strong(row, col - 1)) edge += `M${x} ${y}v${height}`;
    if (!strong(row, col + 1)) edge += `M${x + w} ${y}v${height}`;
  }));
  const layers = [...paths.map((d, k) => [`h${k}`, d]), ["edge case", edge], ["edge", edge]];
  svg.replaceChildren(...layers.flatMap(([name, d]) => (d ? [h("path", { class: name, d })] : [])));
}

/** Outline one patch. */
export function drawMark(svg, view, row, col) {
  const d = rect(patchBox(view, row, col));
  svg.replaceChildren(h("path", { class: "case", d }), h("path", { class: "peak", d }));
}

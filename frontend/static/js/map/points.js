// The map's points: read from the store's file, drawn pixel by pixel into one image, and searched under the pointer.
// Typed arrays only, without an object or element per point, so that 262,144 points can be dragged smoothly.

const HEADER = 16;
const NOWHERE = 65535;
export const LAST = 65534;

const COLUMNS = { 0x53584d31: ["verdict", "omega", "density"], 0x53584d32: ["source"] }; // by the first four bytes

/** Columns of map.bin or sample_map.bin (docs/store.md), without a copy. */
export function parse(buffer) {
  const head = new DataView(buffer);
  const names = buffer.byteLength < HEADER ? null : COLUMNS[head.getUint32(0)];
  if (!names) throw new Error("The server's reply is not a map.");
  const n = head.getUint32(4, true);
  if (buffer.byteLength !== HEADER + (4 + names.length) * n) throw new Error("The map is incomplete.");
  const byte = (name, column) => [name, new Uint8Array(buffer, HEADER + 4 * n + column * n, n)];
  return { n, x: new Uint16Array(buffer, HEADER, n), y: new Uint16Array(buffer, HEADER + 2 * n, n), ...Object.fromEntries(names.map(byte)) };
}

/** The value below which `share` of the values other than 0 lie; 0 means none. */
export function quantile(values, share) {
  const counts = new Uint32Array(256);
  for (const value of values) counts[value]++;
  let left = share * (values.length - counts[0]);
  for (let value = 1; value < 256; value++) if ((left -= counts[value]) <= 0 && counts[value]) return value;
  return 255;
}

const SLOW = 24; // milliseconds; a map that takes longer is drawn without soft edges while it moves
const RED_BLUE = 0xff00ff;
const GREEN = 0xff00;
const EDGE = 24; // pixels around the visible part, so that points leave it smoothly

export class Plot {
  /** @param {HTMLCanvasElement} canvas @param {ReturnType<typeof parse>} data */
  constructor(canvas, data) {
    Object.assign(this, { canvas, data, cx: 0.5, cy: 0.5, zoom: 1, ratio: 1, took: 0, rough: false });
    this.context = canvas.getContext("2d", { alpha: false });
    this.shade = new Uint8Array(data.n); // per point, its index in `table`
    this.table = new Uint32Array(256);
    this.marked = null; // Uint8Array [n], 1 for highlighted points; null if there are none
    this.order = new Uint32Array(0); // visible points, in drawing order
    this.#bucket();
  }

  /** Show the points for which `isVisible(i)`, those with a higher `level[i]` (0 … 255) on top. */
  select(isVisible, level) {
    const { n, x } = this.data;
    const start = new Uint32Array(257);
    const visible = (this.visible = new Uint8Array(n));
    for (let i = 0; i < n; i++) if (x[i] !== NOWHERE && isVisible(i)) { visible[i] = 1; start[level[i] + 1]++; }
    for (let k = 0; k < 256; k++) start[k + 1] += start[k];
    this.order = new Uint32Array(start[256]);
    for (const i of this.sorted) if (visible[i]) this.order[start[level[i]]++] = i; // neighbours follow each other, and lie together in the image's memory
  }

  /** Set the size of the canvas on the page, in CSS pixels. */
  resize(width, height) {
    this.ratio = Math.min(3, globalThis.devicePixelRatio || 1);
    this.width = this.canvas.width = Math.max(1, Math.round(width * this.ratio));
    this.height = this.canvas.height = Math.max(1, Math.round(height * this.ratio));
    this.image = new ImageData(this.width + 2 * EDGE, this.height + 2 * EDGE);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  /** Device pixels of one unit of x and y. */
  get scale() { return (0.94 * Math.min(this.width, this.height) * this.zoom) / LAST; }

  /** Position of a point on the canvas, in device pixels. */
  at(i) { return this.place(this.data.x[i], this.data.y[i]); }

  /** The same of a place in the units of map.bin. */
  place(x, y) {
    const k = this.scale;
    return [(x - this.cx * LAST) * k + this.width / 2, (y - this.cy * LAST) * k + this.height / 2];
  }

  /** The place, in the units of map.bin and inside the map, of a position on the canvas. */
  unplace(px, py) {
    const unit = (value) => Math.round(Math.min(LAST + 1, Math.max(0, value)));
    return [unit((px - this.width / 2) / this.scale + this.cx * LAST), unit((py - this.height / 2) / this.scale + this.cy * LAST)];
  }

  /** The visible point nearest to point i in a direction, at most 45° off it and at least `step` device pixels on; −1 for none. */
  toward(i, dx, dy, step) {
    const { order, data: { x, y } } = this;
    const minStep = step / this.scale;
    let next = -1;
    let leastDistance = Infinity;
    for (let o = 0; o < order.length; o++) {
      const j = order[o];
      const along = (x[j] - x[i]) * dx + (y[j] - y[i]) * dy;
      const across = Math.abs((x[j] - x[i]) * dy) + Math.abs((y[j] - y[i]) * dx);
      if (along < minStep || across > along) continue;
      const distance = along * along + 3 * across * across;
      if (distance < leastDistance) { leastDistance = distance; next = j; }
    }
    return next;
  }

  /** Move the view so that all points i with `chosen[i]` are in it. */
  fit(chosen) {
    const { x, y } = this.data;
    let [left, top, right, bottom] = [LAST, LAST, 0, 0];
    for (let i = 0; i < chosen.length; i++) {
      if (!chosen[i] || x[i] === NOWHERE) continue;
      left = Math.min(left, x[i]); right = Math.max(right, x[i]); top = Math.min(top, y[i]); bottom = Math.max(bottom, y[i]);
    }
    if (left <= right) this.#show(left, top, right, bottom);
  }

  /** Move the view so that a polygon is in it. */
  fitArea(corners) {
    const [xs, ys] = [0, 1].map((axis) => corners.map((corner) => corner[axis]));
    this.#show(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys));
  }

  #show(left, top, right, bottom) {
    const side = Math.min(this.width, this.height);
    const span = Math.max((right - left) * (side / this.width), (bottom - top) * (side / this.height), LAST / 25);
    Object.assign(this, { cx: (left + right) / 2 / LAST, cy: (top + bottom) / 2 / LAST, zoom: Math.max(1, (0.9 * LAST) / span) });
  }

  /** Radius in device pixels: depends on the distance between points, and grows more slowly than the map at zooming. */
  get radius() {
    const between = Math.min(this.width, this.height) / this.ratio / Math.sqrt(Math.max(1, this.data.n));
    return this.ratio * Math.min(7, Math.max(0.75, 0.24 * between * this.zoom ** 0.55));
  }

  /** @param {number} ground colour behind the points, as `rgba` gives it @param {boolean} moving more frames follow */
  draw(ground, moving = false) {
    const begin = performance.now();
    this.rough = moving && this.took > SLOW;
    this.pixels.fill(ground);
    const faded = this.marked && this.table.map((colour) => mix(ground, colour, 0.22));
    this.#stamp(this.radius, faded ?? this.table, this.marked && 0);
    if (this.marked) this.#stamp(Math.max(this.radius * 1.5, 2.5 * this.ratio), this.table, 1);
    this.context.putImageData(this.image, -EDGE, -EDGE);
    this.canvas.toggleAttribute("data-rough", this.rough);
    if (!this.rough) this.took = performance.now() - begin;
  }

  #stamp(radius, table, only) {
    const { order, shade, marked, pixels, data: { x, y } } = this;
    const wide = this.width + 2 * EDGE;
    const high = this.height + 2 * EDGE;
    const reach = Math.ceil(radius);
    const full = [];
    const edge = [];
    const part = [];
    for (let dy = -reach; dy <= reach; dy++) for (let dx = -reach; dx <= reach; dx++) {
      const covered = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(dx, dy)));
      if (covered > 0.99) full.push(dy * wide + dx);
      else if (covered > 0.02 && !this.rough) { edge.push(dy * wide + dx); part.push(Math.round(256 * covered)); }
    }
    const k = this.scale;
    const left = this.width / 2 + EDGE - this.cx * LAST * k + 0.5;
    const top = this.height / 2 + EDGE - this.cy * LAST * k + 0.5;
    for (let o = 0; o < order.length; o++) {
      const i = order[o];
      if (only !== null && marked[i] !== only) continue;
      const px = Math.floor(x[i] * k + left);
      const py = Math.floor(y[i] * k + top);
      if (px < reach || py < reach || px >= wide - reach || py >= high - reach) continue;
      const at = py * wide + px;
      const colour = table[shade[i]];
      for (let s = 0; s < full.length; s++) pixels[at + full[s]] = colour;
      for (let s = 0; s < edge.length; s++) { // as `mix`, a few times faster
        const under = pixels[at + edge[s]];
        const rest = 256 - part[s];
        const redBlue = (Math.imul(under & RED_BLUE, rest) + Math.imul(colour & RED_BLUE, part[s])) >>> 8;
        const green = (Math.imul(under & GREEN, rest) + Math.imul(colour & GREEN, part[s])) >>> 8;
        pixels[at + edge[s]] = 0xff000000 | (redBlue & RED_BLUE) | (green & GREEN);
      }
    }
  }

  /** The visible point nearest to a place on the canvas, at most `reach` away, all in device pixels; −1 for none. */
  nearest(px, py, reach) {
    const { data: { x, y }, visible, start, sorted } = this;
    const k = this.scale;
    const ux = (px - this.width / 2) / k + this.cx * LAST;
    const uy = (py - this.height / 2) / k + this.cy * LAST;
    const far = reach / k;
    const cell = (u) => Math.min(255, Math.max(0, u >> 8));
    let nearestPoint = -1;
    let leastDistance = far * far;
    for (let row = cell(uy - far); row <= cell(uy + far); row++) for (let col = cell(ux - far); col <= cell(ux + far); col++) {
      for (let s = start[row * 256 + col]; s < start[row * 256 + col + 1]; s++) {
        const i = sorted[s];
        if (!visible[i]) continue;
        const distance = (x[i] - ux) ** 2 + (y[i] - uy) ** 2;
        if (distance < leastDistance) { leastDistance = distance; nearestPoint = i; }
      }
    }
    return nearestPoint;
  }

  /** Points sorted into 256 × 256 cells, for `nearest`. */
  #bucket() {
    const { n, x, y } = this.data;
    const start = (this.start = new Uint32Array(256 * 256 + 1));
    const cell = (i) => (y[i] >> 8) * 256 + (x[i] >> 8);
    for (let i = 0; i < n; i++) start[cell(i) + 1]++;
    for (let c = 0; c < 256 * 256; c++) start[c + 1] += start[c];
    const next = start.slice();
    this.sorted = new Uint32Array(n);
    for (let i = 0; i < n; i++) this.sorted[next[cell(i)]++] = i;
  }

  /** Per tile of the canvas the visible point with the highest level, which gets a name. */
  prominent(level, across) {
    const { order, marked, width, height, data: { x, y } } = this;
    const down = Math.max(1, Math.round((across * height) / width));
    const bestOfTile = new Int32Array(across * down).fill(-1);
    const k = this.scale;
    const left = width / 2 - this.cx * LAST * k;
    const top = height / 2 - this.cy * LAST * k;
    for (let o = order.length - 1; o >= 0; o--) {
      const i = order[o];
      if (marked && !marked[i]) continue;
      const px = x[i] * k + left;
      const py = y[i] * k + top;
      if (px < 0 || py < 0 || px >= width || py >= height) continue;
      const t = Math.floor((py * down) / height) * across + Math.floor((px * across) / width);
      if (bestOfTile[t] < 0 || level[i] > level[bestOfTile[t]]) bestOfTile[t] = i;
    }
    return [...bestOfTile].filter((i) => i >= 0);
  }
}

/** A pixel of ImageData as a number: little-endian RGBA, as on every machine that runs a browser. */
export const rgba = (r, g, b) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;

/** `share` of one colour over another: red and blue are mixed at once, as they do not reach into each other. */
export function mix(under, over, share) {
  const part = Math.round(share * 256);
  const both = (mask) => (((under & mask) * (256 - part) + (over & mask) * part) >>> 8) & mask;
  return (0xff000000 | both(RED_BLUE) | both(GREEN)) >>> 0;
}

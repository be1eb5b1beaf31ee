// Patches as an address has them: backend/pages/explain/drawing.py, `runs`.

/** Patches, [view, row, column], as the address has them. */
export function runs(patches) {
  const pieces = [];
  for (const [v, r, c] of [...patches].map((key) => key.split(":").map(Number)).sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2])) {
    const last = pieces.at(-1);
    if (last && last[0] === v && last[1] === r && last[3] === c - 1) last[3] = c;
    else pieces.push([v, r, c, c]);
  }
  return pieces.map(([v, r, a, b]) => `${v}:${r}:${a}${b > a ? `-${b}` : ""}`).join(",");
}

/** Patches of an address as a set of view:row:column. */
export function parse(text) {
  const patches = new Set();
  for (const run of text.split(",")) {
    const match = /^\s*(\d+):(\d+):(\d+)(?:-(\d+))?\s*$/.exec(run);
    if (match) for (let c = Number(match[3]); c <= Math.min(Number(match[4] ?? match[3]), Number(match[3]) + 500); c++) patches.add(`${match[1]}:${match[2]}:${c}`);
  }
  return patches;
}

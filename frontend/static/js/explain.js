// The page of an answer. The server renders every state; this module asks at once where the address names what to read,
// uploads an image, and lets the pointer and the keys choose patches to paint over.
import { swap } from "./app.js";
import { $, $$, api, errorMessage, h, say, url } from "./dom.js";
import { drawMark, patchAt, patchBox } from "./heatmap.js";
import { whenLoaded } from "./live.js";

/** Patches, [view, row, column], as the address has them: backend/pages/explain/drawing.py, `runs`. */
function runs(patches) {
  const pieces = [];
  for (const [v, r, c] of [...patches].map((key) => key.split(":").map(Number)).sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2])) {
    const last = pieces.at(-1);
    if (last && last[0] === v && last[1] === r && last[3] === c - 1) last[3] = c;
    else pieces.push([v, r, c, c]);
  }
  return pieces.map(([v, r, a, b]) => `${v}:${r}:${a}${b > a ? `-${b}` : ""}`).join(",");
}

function parse(text) {
  const patches = new Set();
  for (const run of text.split(",")) {
    const match = /^\s*(\d+):(\d+):(\d+)(?:-(\d+))?\s*$/.exec(run);
    if (match) for (let c = Number(match[3]); c <= Math.min(Number(match[4] ?? match[3]), Number(match[3]) + 500); c++) patches.add(`${match[1]}:${match[2]}:${c}`);
  }
  return patches;
}

function wire() {
  const root = $("#explain");
  const upload = $("[data-upload]", root);
  upload?.addEventListener("change", () => hold(upload));
  const question = $("[data-ask] [name=prompt]", root);
  question.form.addEventListener("submit", () => { if (!question.value) question.value = " "; }); // an empty field would be left out
  const test = $("[data-test]", root);
  if (!test) return;
  test.addEventListener("change", () => count(test));
  count(test);
  const field = $("[data-patches]", test);
  if (field) for (const frame of $$("[data-image]", root)) wirePad(frame, JSON.parse(root.dataset.views), field, () => count(test));
}

/** Say beside the button what is chosen. */
function count(test) {
  const features = $$("[name=ablate]", test).filter((box) => box.type === "hidden" || box.checked).length;
  const patches = parse($("[data-patches]", test)?.value ?? "").size;
  const counted = [[features, "feature", "features"], [patches, "patch", "patches"]].filter(([n]) => n).map(([n, one, more]) => `${n} ${n === 1 ? one : more}`);
  $("[data-picked]", test).textContent = counted.join(", ") || "Tick features above, or choose patches on the image.";
}

async function hold(input) {
  const [file] = input.files;
  if (!file) return;
  const body = new FormData();
  body.append("image", file);
  try {
    const { hash } = await api("/images", {}, { method: "POST", body });
    const { prompt, max_tokens: most } = Object.fromEntries(new FormData(input.form));
    swap(url("/explain", { image: hash, prompt, max_tokens: most, ask: 1 }), "explain");
  } catch (error) {
    input.value = "";
    $(".note.error", input.form)?.remove();
    input.form.append(h("p", { class: "note error", role: "alert" }, errorMessage(error)));
  }
}

/** Choose patches of one image with the pointer, or with arrow keys and space. */
function wirePad(frame, views, field, changed) {
  const pad = $(".pad", frame), marks = $(".marks", frame);
  const image = Number(frame.dataset.image);
  const mine = views.flatMap((view, index) => (view.image === image && view.rows && view.cols ? [index] : []));
  if (!mine.length) return;
  let patches = parse(field.value);
  let at = null, drawing = null;
  pad.hidden = false;

  const draw = () => {
    const d = [...patches].map((key) => key.split(":").map(Number)).filter(([v]) => mine.includes(v))
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
  const under = (event) => patchAt(event, pad, marks, views, mine);
  pad.addEventListener("pointerdown", (event) => {
    const patch = under(event);
    if (!patch) return;
    pad.setPointerCapture(event.pointerId);
    drawing = !patches.has(patch.join(":"));
    set(patch, drawing);
  });
  pad.addEventListener("pointermove", (event) => {
    const patch = under(event);
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
      const [view, row, col] = at ?? [mine[0], 0, 0];
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

wire();
document.addEventListener("swap", (event) => { if (event.target.id === "explain") wire(); });
const { auto, liveState } = $("#explain").dataset;
if (liveState === "loading") whenLoaded(() => location.reload());
else if (auto !== undefined) { // the address names what to read: ask at once
  const to = new URL(location.href);
  to.searchParams.set("ask", "1");
  swap(to.href, "explain", { history: "replace" });
}

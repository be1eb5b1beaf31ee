// The list of features: drag over a histogram to choose a range; a number in the field of words opens that feature.
import { $, $$, url } from "./dom.js";

const form = $("#filters");
const rail = $(".rail");
const wide = matchMedia("(min-width: 1000px)");
const unfold = () => { if (wide.matches) rail.open = true; };
unfold();
wide.addEventListener("change", unfold);

for (const range of $$("[data-range]")) brush(range);

/** Let the pointer and the arrow keys choose a range. @param {Element} range a histogram with the fields of both ends */
function brush(range) {
  const edges = JSON.parse(range.dataset.range), n = edges.length - 1;
  const [low, high] = $$("input", range), svg = $("svg", range), bars = $$("rect", svg);
  let start = null;

  const paint = () => bars.forEach((bar) => {
    const i = Math.round(bar.getAttribute("x") / 4);
    const inside = (low.value === "" || edges[i + 1] > Number(low.value)) && (high.value === "" || edges[i] < Number(high.value));
    bar.setAttribute("class", inside ? "b" : "left");
  });
  const choose = (from, to) => { // an end of the axis is no limit
    low.value = from <= 0 ? "" : edges[from];
    high.value = to >= n ? "" : edges[to];
    paint();
  };
  const bin = (event) => {
    const box = svg.getBoundingClientRect();
    return Math.max(0, Math.min(n - 1, Math.floor(((event.clientX - box.left) / box.width) * n)));
  };
  const drag = (event) => choose(Math.min(start, bin(event)), Math.max(start, bin(event)) + 1);

  svg.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    start = bin(event);
    svg.setPointerCapture(event.pointerId);
    drag(event);
  });
  svg.addEventListener("pointermove", (event) => { if (start !== null) drag(event); });
  for (const kind of ["pointerup", "pointercancel"]) {
    svg.addEventListener(kind, () => { if (start !== null) { start = null; form.requestSubmit(); } });
  }
  svg.addEventListener("dblclick", () => { choose(0, n); form.requestSubmit(); });

  range.addEventListener("input", paint);
  document.addEventListener("swap", paint); // Back gives the fields other values
  for (const [field, end] of [[low, 0], [high, n]]) {
    field.addEventListener("keydown", (event) => {
      const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      const at = field.value === "" ? end : edges.findIndex((edge, i) => i === n || edge >= Number(field.value));
      const to = Math.max(0, Math.min(n, at + by));
      field.value = to === end ? "" : edges[to];
      field.dispatchEvent(new Event("input", { bubbles: true }));
    });
  }
}

form.addEventListener("keydown", (event) => {
  const number = event.target.name === "q" && event.key === "Enter" && event.target.value.trim().match(/^#?(\d{1,9})$/);
  if (!number || Number(number[1]) > Number(form.dataset.last)) return;
  event.preventDefault();
  location.assign(url(`/features/${Number(number[1])}`));
});

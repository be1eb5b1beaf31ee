// The quality page: drag the line in the histogram to set the threshold.
import { $ } from "./dom.js";

document.addEventListener("pointerdown", (event) => {
  const area = event.target.closest("[data-drag]");
  if (!area) return;
  event.preventDefault();
  const form = area.closest("form");
  const number = form.elements.threshold;
  const low = Number(area.dataset.low);
  const high = Number(area.dataset.high);
  const svg = $("svg", area);
  const bars = [...svg.querySelectorAll("rect")];
  const width = svg.viewBox.baseVal.width;

  const move = (moved) => {
    const box = area.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (moved.clientX - box.left) / box.width));
    number.value = Number((low + share * (high - low)).toPrecision(4));
    const x = share * width;
    const mark = $("[data-mark]", svg);
    mark?.setAttribute("x1", x);
    mark?.setAttribute("x2", x);
    for (const bar of bars) bar.setAttribute("class", bar.x.baseVal.value + 1.8 > x ? "over" : "b");
  };
  const end = () => {
    removeEventListener("pointermove", move);
    form.requestSubmit();
  };
  move(event);
  addEventListener("pointermove", move);
  addEventListener("pointerup", end, { once: true });
});

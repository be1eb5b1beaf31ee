// The quality page: counts follow the threshold and the share while one drags; the exports wait for the server's count.
import { swap } from "./app.js";
import { $, $$ } from "./dom.js";
import "./sideways.js";

const big = (n) => Math.round(n).toLocaleString("en-US");
const countsOf = (element) => element.dataset.counts.split(" ").map(Number);

/** How many values lie above a share of a histogram's axis, by its bars. */
function above(counts, share) {
  const at = Math.min(counts.length, Math.max(0, share * counts.length));
  return counts.reduce((sum, n, i) => sum + n * Math.min(1, Math.max(0, i + 1 - at)), 0);
}

/** The share of the axis above which n values lie. */
function cutOf(counts, n) {
  let left = n;
  for (let i = counts.length - 1; i >= 0; i--) {
    if (counts[i] >= left) return (i + (counts[i] ? 1 - left / counts[i] : 1)) / counts.length;
    left -= counts[i];
  }
  return 0;
}

/** Move the line of a histogram, and colour its bars by their side of it. */
function mark(svg, share, [under, over]) {
  const x = share * svg.viewBox.baseVal.width;
  const line = $("[data-mark]", svg);
  line?.setAttribute("x1", x);
  line?.setAttribute("x2", x);
  for (const bar of svg.querySelectorAll("rect")) bar.setAttribute("class", bar.x.baseVal.value + 1.8 > x ? over : under);
}

/** Exports hold what the server has counted: none while it has not. */
function hold(on) {
  for (const link of $$("[data-export]")) {
    if (on && link.hasAttribute("href")) { link.dataset.href = link.getAttribute("href"); link.removeAttribute("href"); }
    if (!on && link.dataset.href) link.setAttribute("href", link.dataset.href);
    link.toggleAttribute("aria-disabled", false);
    if (on) link.setAttribute("aria-disabled", "true");
  }
  for (const element of $$("[data-preview], #flagged, [data-testid=file-name]")) element.classList.toggle("stale", on);
}

function showThreshold(area, value) {
  const handle = $("[data-handle]", area);
  if (!handle) return;
  const share = Math.min(1, Math.max(0, (value - handle.min) / (handle.max - handle.min)));
  const n = above(countsOf(area), share);
  mark($("svg", area), share, ["b", "over"]);
  for (const element of $$("[data-count]")) element.textContent = `≈ ${big(n)}`;
  for (const element of $$("[data-others]")) element.textContent = `≈ ${big(area.dataset.total - n)}`;
}

function showShare(slider) {
  const n = Math.floor((slider.dataset.matching * slider.value) / 100 + 0.5); // as the server rounds
  $("[data-share]").textContent = slider.value;
  for (const element of $$("[data-kept]")) element.textContent = big(n);
  const chart = $("[data-kept-chart]");
  if (!chart) return;
  const counts = countsOf(chart);
  const all = counts.reduce((sum, n) => sum + n, 0);
  mark($("svg", chart), cutOf(counts, (all * slider.value) / 100), ["left", "b"]);
}

const follows = (target) => target.matches?.("[data-handle], [data-keep], [name=threshold]");

for (const kind of ["pointerdown", "focusin"]) {
  document.addEventListener(kind, ({ target }) => { if (follows(target)) target.dataset.start ??= target.value; });
}
document.addEventListener("input", ({ target }) => {
  if (!follows(target)) return;
  const area = $("[data-drag]", target.form);
  if (target.matches("[data-handle]")) target.form.elements.threshold.value = Number(Number(target.value).toPrecision(4));
  if (target.matches("[data-keep]")) showShare(target);
  else if (area && target.value !== "") showThreshold(area, Number(target.value));
  hold(target.value !== target.dataset.start);
});
document.addEventListener("change", ({ target }) => {
  if (target.matches("[data-handle], [data-keep]")) {
    target.form.dataset.typing = ""; // one entry of the history for a page that is dragged on
    target.form.requestSubmit();
  }
  const other = { without: "require", require: "without", without_right: "only_right", only_right: "without_right" }[target.name]; // a flag is left out or required, not both
  if (other && target.checked) $(`[name=${other}][value="${target.value}"]`, target.form).checked = false;
}, true); // before app.js sends the form

// ✓ and ✗ on a flagged pair: the same form, without leaving the place on the page.
document.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-mark-form]");
  if (!form) return;
  event.preventDefault();
  const card = form.closest("[data-sample]"), hadFocus = card.contains(document.activeElement);
  swap(form.action, "quality", { history: null, init: { method: "POST", body: new FormData(form, event.submitter) } }).then(() => {
    if (!hadFocus || document.activeElement.closest("[data-sample]")) return; // by a key: the row keeps the focus
    $(`[data-sample="${CSS.escape(card.dataset.sample)}"] .meta a`)?.focus({ preventScroll: true });
  });
});

// The list of features: drag over a histogram to choose a range; a number in the field of words opens that feature.
import { swap } from "./app.js";
import "./new_list.js";
import { $, $$, errorMessage, pageOf, refusal, url } from "./dom.js";

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
    const isInside = (low.value === "" || edges[i + 1] > Number(low.value)) && (high.value === "" || edges[i] < Number(high.value));
    bar.setAttribute("class", isInside ? "b" : "left");
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

// The selected rows: all of the page at once, and dialogs that write about them. They stand outside the list, so that what is typed stays.
const boxes = () => $$("[data-testid=feature-row] input[name=feature]");
const selected = () => boxes().filter((box) => box.checked).map((box) => box.value.split(":")[0]);
const counted = (n) => `${n} feature${n === 1 ? "" : "s"}`;

function count() {
  const n = selected().length, all = $("[data-select-all]");
  if (!all) return;
  all.checked = n > 0 && n === boxes().length;
  all.indeterminate = n > 0 && !all.checked;
  $("[data-compare]").disabled = n !== 2;
  for (const button of $$("[data-opens], [data-any]")) button.disabled = !n;
}

document.addEventListener("change", ({ target }) => {
  if (target.matches("[data-select-all]")) for (const box of boxes()) box.checked = target.checked;
  if (target.matches("[data-select-all], [name=feature]")) count();
});
document.addEventListener("click", ({ target }) => {
  const id = target.closest("[data-opens]")?.dataset.opens;
  if (target.closest("[data-close]")) target.closest("dialog").close();
  if (!id) return;
  const dialog = document.getElementById(id);
  $("[data-n]", dialog).textContent = counted(selected().length);
  $("[data-problem]", dialog).hidden = true;
  dialog.showModal();
});
/** New tags, for the filter, which stands outside the list. @param {string} tags separated by commas */
function offer(tags) {
  const choice = $("[name=tag]", $("#filters")), known = new Set([...choice.options].map((option) => option.value.toLowerCase()));
  choice.options[0].textContent = "any";
  for (const tag of tags.split(",").map((text) => text.trim())) if (tag && !known.has(tag.toLowerCase())) choice.append(new Option(tag, tag));
}
document.addEventListener("submit", async (event) => {
  const form = event.target.closest("[data-bulk]");
  if (!form) return;
  event.preventDefault();
  const body = new FormData(form), note = $("[data-problem]", form), fields = $$("button", form);
  body.set("features", selected().join());
  body.set("back", location.search.slice(1));
  for (const button of fields) button.disabled = true;
  try {
    const response = await fetch(form.action, { method: "POST", body, headers: { Accept: "text/html" } });
    if (!response.ok) throw new Error(refusal(await pageOf(response), response));
    if (!form.dataset.bulk) { location.assign(response.url); return; }
    form.closest("dialog").close();
    offer(form.elements.tags.value);
    form.elements.tags.value = "";
    swap(location.href, form.dataset.bulk, { history: null });
  } catch (error) { // what was typed stays
    note.textContent = errorMessage(error);
    note.hidden = false;
  } finally { for (const button of fields) button.disabled = false; }
});
document.addEventListener("swap", count);
addEventListener("pageshow", count); // Back restores the ticks
count();

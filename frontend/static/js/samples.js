// The list of samples: counts what is ticked, and folds the filters on a phone. The page works without it.
import { $, $$ } from "./dom.js";

function count() {
  const ticks = $$("[data-testid=tick]");
  const n = ticks.filter((tick) => tick.checked).length;
  const number = $("[data-ticked]");
  if (!number) return;
  number.textContent = n ? ` ${n} (JSON lines)` : "";
  $("[data-unticked]").textContent = n ? ` (${(number.closest("form").dataset.total - n).toLocaleString("en-US")})` : "";
  for (const name of ["export-ticked", "export-unticked", "basket-ticked"]) $(`[data-testid=${name}]`).disabled = !n;
  $("[data-tick-all]").textContent = n === ticks.length ? "Untick all" : "Tick all here";
}

$("#filters").addEventListener("formdata", ({ formData }) => { if (!formData.get("feature")) formData.delete("side"); });
document.addEventListener("change", (event) => { if (event.target.matches("[data-testid=tick]")) count(); });
document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-tick-all]")) return;
  const ticks = $$("[data-testid=tick]");
  const allTicked = ticks.every((tick) => tick.checked);
  for (const tick of ticks) tick.checked = !allTicked;
  count();
});
document.addEventListener("swap", count);
count();
const more = $(".more");
if (matchMedia("(max-width: 899px)").matches && !("active" in more.dataset)) more.open = false;

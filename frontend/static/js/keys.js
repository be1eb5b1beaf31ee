// Keys, on every page. templating.py has the table that the dialog "Keys" shows.
import { $, $$, flip, say, url } from "./dom.js";

const ROWS = "main :is(tr, li):is([data-feature], [data-sample]):not([data-preview] *)";
const dialog = $("#keys");

for (const button of $$("[data-keys]")) button.hidden = false;
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-keys]")) dialog.showModal();
  else if (event.target === dialog) dialog.close(); // beside it
});

/** The link of a row that opens its feature or sample. */
const linkOf = (row) => $("a.label, .meta a, a:not([tabindex='-1'])", row);
const rowOf = (element) => element?.closest?.(ROWS);

/** Move the focus to the next row or the one before; after the last one, open the next page of the list. */
function step(by) {
  const rows = $$(ROWS).filter((row) => linkOf(row)?.checkVisibility());
  if (!rows.length) return false;
  const to = rowOf(document.activeElement) ? rows.indexOf(rowOf(document.activeElement)) + by : by > 0 ? 0 : rows.length - 1;
  if (rows[to]) {
    linkOf(rows[to]).focus();
    rows[to].scrollIntoView({ block: "nearest" });
    return true;
  }
  const page = to < 0 ? null : $(".pager a[rel=next]");
  if (page) page.click();
  else say(to < 0 ? "Start of the list" : "End of the list");
  return true;
}

/** Another feature or sample, or another page of a list. */
function go(rel, within) {
  const to = $(`${within} a[rel="${rel}"]`);
  to?.click();
  return Boolean(to);
}

/** The same place in the layer before or after. */
function layer(by) {
  const links = $$(".layers a");
  const to = links[links.findIndex((link) => link.hasAttribute("aria-current")) + by];
  to?.click();
  return Boolean(to);
}

/** Press a button of the row that has the focus. */
function press(selector) {
  const button = $(selector, rowOf(document.activeElement) ?? document.createElement("p"));
  button?.click();
  return Boolean(button);
}

const isItem = () => Boolean($(".head nav[data-item]"));
const ACTIONS = {
  "[": () => layer(-1),
  "]": () => layer(1),
  j: () => (isItem() ? go("next", ".head") : step(1)),
  k: () => (isItem() ? go("prev", ".head") : step(-1)),
  ArrowRight: () => go("next", "main"),
  ArrowLeft: () => go("prev", "main"),
  o: () => { const row = rowOf(document.activeElement); if (row) linkOf(row).click(); return Boolean(row); },
  x: () => { const box = $("input[type=checkbox]", rowOf(document.activeElement) ?? document.createElement("p")); box?.click(); return Boolean(box); },
  y: () => press("[data-right]"),
  w: () => press("[data-wrong]"),
  e: () => {
    const label = $("#notes input[name=label]");
    label?.focus();
    label?.scrollIntoView({ block: "center" });
    return Boolean(label);
  },
  h: () => { say(flip("no-heat") ? "Activations hidden" : "Activations shown"); return true; },
  "/": () => { const words = $("main input[name=q]"); if (words) words.focus(); else if ($(".nav [href*='/search']")) location.assign(url("/search")); return true; },
  n: () => go("next", ".tour"),
  p: () => go("prev", ".tour"),
  Escape: () => { const leave = $(".panel.max") ? null : $(".tour [data-leave]"); leave?.click(); return Boolean(leave); },
  "?": () => { dialog.showModal(); return true; },
};

document.addEventListener("keydown", (event) => {
  if (event.metaKey || event.ctrlKey || event.altKey || event.defaultPrevented || dialog.open) return;
  if (event.target.closest("textarea, select, input:not([type=checkbox]), [role=slider], [role=grid]")) return;
  if (event.target.closest("[data-own-keys]") && event.key !== "?") return;
  if (ACTIONS[event.key]?.()) event.preventDefault();
});

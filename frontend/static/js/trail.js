// The list from which a feature was opened: j and k follow it, also in a new tab and into the list's next page.
import { $, $$, h, isPlain, url } from "./dom.js";

/** The features of a list, in its order. */
const idsOf = (list) => $$("li[data-feature], tr[data-feature]", list).map((element) => Number(element.dataset.feature));
const LINK = "[data-trail] a[href*='/features/']";

/** {ids, total, next}: the ids of a page, the length of the whole list (0: unknown), and the API's address of its next page. */
function read(id) {
  try {
    const trail = JSON.parse(sessionStorage.getItem("trail"));
    return trail?.ids?.includes(id) ? trail : null;
  } catch {
    return null;
  }
}

function write(trail) {
  try { sessionStorage.setItem("trail", JSON.stringify(trail)); } catch { /* a private window: the keys follow the feature numbers */ }
}

document.addEventListener("click", (event) => {
  const list = event.target.closest(LINK)?.closest("[data-trail]");
  if (!list) return;
  const ids = idsOf(list);
  write({ ids, total: Number(list.dataset.total ?? ids.length), next: list.dataset.next ?? null });
}, true);

// A link that may open in a new tab, where this tab's list is not known, carries the list.
document.addEventListener("mousedown", (event) => {
  const link = event.target.closest(LINK);
  if (!link || isPlain(event)) return;
  const to = new URL(link.href);
  to.searchParams.set("list", idsOf(link.closest("[data-trail]")).join(","));
  link.href = to.href;
});

/** The trail with the ids of the list's next page; as it was where that did not come. */
async function extended(trail) {
  try {
    const page = await (await fetch(trail.next)).json();
    const next = new URL(trail.next, location.href);
    next.searchParams.set("cursor", page.next);
    return { ...trail, ids: [...trail.ids, ...page.items.map((item) => item.id)], next: page.next && next.href };
  } catch {
    return trail;
  }
}

/** Let the page's links to the feature before and after follow the list. @param {Element} place shows where one is in it */
export async function follow(id, place) {
  let trail = read(id);
  if (!trail) return;
  if (trail.ids.at(-1) === id && trail.next) write(trail = await extended(trail));
  const at = trail.ids.indexOf(id), ends = trail.ids.length - 1 === at && !trail.next;
  place.textContent = trail.total ? `${at + 1} of ${trail.total} in the list${ends ? ", the last one" : ""}` : ends ? "end of the list" : "in the list";
  for (const [rel, to, title] of [["prev", trail.ids[at - 1], "Previous feature (k or ←)"], ["next", trail.ids[at + 1], "Next feature (j or →)"]]) {
    let link = $(`a[rel=${rel}]`, place.parentElement);
    if (to === undefined) { link?.remove(); continue; }
    if (!link) place[rel === "prev" ? "before" : "after"](link = h("a", { class: "btn", rel, title }));
    link.href = url(`/features/${to}`);
    link.textContent = rel === "prev" ? `← ${to}` : `${to} →`;
  }
}

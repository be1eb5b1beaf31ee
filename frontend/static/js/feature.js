// The feature page: walk the list one came from. j and k then follow that list instead of the bare numbers.
import { $, $$, url } from "./dom.js";

const id = Number($("[data-testid=feature-head]").dataset.feature);

/** The features page and every card list leave the ids they showed; a stale or foreign list is ignored. */
function trail() {
  try {
    const ids = JSON.parse(sessionStorage.getItem("trail") ?? "[]");
    return Array.isArray(ids) && ids.includes(id) ? ids : null;
  } catch {
    return null;
  }
}

const ids = trail();
if (ids) {
  const here = ids.indexOf(id);
  for (const [rel, to, arrow] of [["prev", ids[here - 1], "←"], ["next", ids[here + 1], "→"]]) {
    const link = $(`a[rel=${rel}]`);
    if (!link || to === undefined) continue;
    link.href = url(`/features/${to}`);
    link.textContent = rel === "prev" ? `${arrow} ${to}` : `${to} ${arrow}`;
    link.title += `: ${here + 1} of ${ids.length} in your list`;
  }
}

// Keep modality and band while walking: someone who compares top text tokens wants to go on doing so.
const keep = new URLSearchParams(location.search);
keep.delete("store");
for (const link of $$("a[rel=prev], a[rel=next]")) {
  const to = new URL(link.href);
  for (const [name, value] of keep) to.searchParams.set(name, value);
  link.href = to.href;
}

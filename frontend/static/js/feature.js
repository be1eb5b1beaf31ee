// The feature page: j and k follow the list from which the feature was opened, instead of the feature numbers.
import { $, $$, h, url } from "./dom.js";

const id = Number($("[data-testid=feature-head]").dataset.feature);

/** The ids of the list from which this feature was opened; null if the stored list does not contain it. */
function trail() {
  try {
    const ids = JSON.parse(sessionStorage.getItem("trail") ?? "[]");
    return Array.isArray(ids) && ids.includes(id) ? ids : null;
  } catch {
    return null;
  }
}

const ids = new URLSearchParams(location.search).has("list") ? null : trail(); // the server follows a list in the address
if (ids) {
  const here = ids.indexOf(id), place = $("[data-testid=in-list]");
  place.textContent = `${here + 1} of ${ids.length} in the list`;
  for (const [rel, to, arrow] of [["prev", ids[here - 1], "←"], ["next", ids[here + 1], "→"]]) {
    let link = $(`a[rel=${rel}]`);
    if (to === undefined) { link?.remove(); continue; }
    if (!link) place[rel === "prev" ? "before" : "after"](link = h("a", { class: "btn", rel, title: rel === "prev" ? "Previous feature (k or ←)" : "Next feature (j or →)" }));
    link.href = url(`/features/${to}`);
    link.textContent = rel === "prev" ? `${arrow} ${to}` : `${to} ${arrow}`;
  }
}

// Keep what is shown when moving on, so that one can compare features; it may have changed since the page was loaded.
for (const link of $$("a[rel=prev], a[rel=next]")) {
  link.addEventListener("click", () => {
    const to = new URL(link.href);
    to.search = location.search;
    link.href = to.href;
  });
}

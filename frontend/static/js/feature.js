// The feature page: j and k follow the list from which the feature was opened, instead of the feature numbers.
import { $, $$, url } from "./dom.js";

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

// Keep modality and band when moving on, so that one can compare features.
const parameters = new URLSearchParams(location.search);
parameters.delete("store");
for (const link of $$("a[rel=prev], a[rel=next]")) {
  const to = new URL(link.href);
  for (const [name, value] of parameters) to.searchParams.set(name, value);
  link.href = to.href;
}

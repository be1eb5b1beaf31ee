// The feature page: j and k follow the list from which the feature was opened, instead of the feature numbers.
import { $ } from "./dom.js";
import { follow } from "./trail.js";

const place = $("[data-testid=in-list]");
// The server follows a list in the address.
if (!new URLSearchParams(location.search).has("list")) follow(Number($("[data-testid=feature-head]").dataset.feature), place);

// Keep what is shown when moving on, so that one can compare features; it may have changed since the page was loaded.
place.parentElement.addEventListener("click", (event) => {
  const link = event.target.closest("a[rel=prev], a[rel=next]");
  if (!link) return;
  const to = new URL(link.href);
  to.search = location.search;
  link.href = to.href;
}, true);

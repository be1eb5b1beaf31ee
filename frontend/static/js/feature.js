// The feature page: j and k follow the list from which the feature was opened, instead of the feature numbers.
import { swap } from "./app.js";
import { showProgress } from "./progress.js";
import { $, isPlain, say } from "./dom.js";
import { whenLoaded } from "./live.js";
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

// The effect is measured on demand: the model takes seconds, or more where it has other requests. Its page has the same panel; the address keeps the choice.
showProgress("effect", "Measuring", "Stopped: nothing was measured. Try again to measure it.");
async function measure(link) {
  link.textContent = "Measuring …";
  say("Measuring");
  await swap(link.href, "effect", { history: null });
  if (link.isConnected) link.textContent = "Try again"; // no answer has taken its place
}
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-effect]");
  if (!link || !isPlain(event)) return;
  event.preventDefault();
  const to = new URL(location.href);
  to.searchParams.set("effect", 1);
  if (to.href !== location.href) history.pushState({ swapped: ["effect"] }, "", to);
  measure(link);
});
const begin = () => {
  const link = $("a[data-effect]");
  if (link && "auto" in link.dataset) measure(link);
  else if (link && "loading" in link.dataset) whenLoaded(() => { if (link.isConnected) measure(link); });
};
addEventListener("swap", (event) => { if (event.target.id === "effect") begin(); });
begin();

// A sample of each pair is fetched once one scrolls to the partners.
const near = new IntersectionObserver((entries) => {
  const link = entries.find((entry) => entry.isIntersecting)?.target;
  if (!link) return;
  near.disconnect();
  swap(link.href, "partners", { history: null, background: true });
}, { rootMargin: "300px" });
const watch = () => { const link = $("a[data-pairs]"); if (link) near.observe(link); };
addEventListener("swap", (event) => { if (event.target.id === "partners") watch(); });
watch();

// The basket: features and samples of this store, kept in this browser from page to page. Its page has all of it in the address.
import { $, $$, isPlain, say, url } from "./dom.js";

const KEY = `basket ${document.documentElement.dataset.store}`;
let memory = { features: [], samples: [] };

function read() {
  try { memory = { features: [], samples: [], ...JSON.parse(localStorage.getItem(KEY)) }; } catch { /* a private window: it holds for this page */ }
  return memory;
}
function write(basket) {
  memory = basket;
  try { localStorage.setItem(KEY, JSON.stringify(basket)); } catch { /* as above */ }
  show();
}
const addressOf = ({ features, samples }) => url("/basket", { features: features.join(","), sample: samples });
const join = (a, b) => [...new Set([...a, ...b])];

/** Add features and samples. @param {string[]} features numbers @param {string[]} samples as addresses name them */
function add(features, samples) {
  const basket = read(), n = basket.features.length + basket.samples.length;
  const next = { features: join(basket.features, features.map(String)), samples: join(basket.samples, samples) };
  write(next);
  const nAdded = next.features.length + next.samples.length - n;
  say(nAdded ? `${nAdded} added to the basket` : "In the basket already");
}

/** The count in the bar, and the links that lead to the basket. */
function show() {
  const basket = read(), n = basket.features.length + basket.samples.length;
  for (const link of $$("[data-basket-link]")) link.href = addressOf(basket);
  const count = $("[data-basket-count]");
  if (!count) return; // an exported site
  count.hidden = !n;
  count.textContent = `Basket ${n}`;
}

const page = $("[data-basket-page]");
if (page) {
  const { features, sample } = JSON.parse(page.dataset.basketPage);
  const basket = { features: features ? features.split(",") : [], samples: sample };
  const isSame = () => JSON.stringify(read()) === JSON.stringify(basket);
  $("[data-basket-other]").hidden = isSame() || !(basket.features.length + basket.samples.length);
  page.parentElement.addEventListener("click", ({ target }) => {
    const drop = target.closest("[data-basket-drop]")?.dataset.basketDrop;
    if (target.closest("[data-basket-adopt]")) { write(basket); $("[data-basket-other]").hidden = true; say("This is your basket now"); }
    if (!isSame()) return; // somebody else's: only the address changes
    if (drop) write({ features: basket.features.filter((id) => id !== drop), samples: basket.samples.filter((id) => id !== drop) });
    if (target.closest("[data-basket-clear]")) write({ features: [], samples: [] });
  }, true);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-basket-add]");
  if (!link || !isPlain(event)) return;
  event.preventDefault();
  const { feature, sample } = link.dataset;
  const form = link.form ? new FormData(link.form) : null; // the selected rows of a list
  const numbers = form ? (form.has("ticked") ? [] : form.getAll("feature")).map((value) => value.split(":")[0]) : feature ? [feature] : [];
  const keys = form ? form.getAll("id") : sample ? [sample] : [];
  if (numbers.length + keys.length) add(numbers, keys);
  else if (link.setCustomValidity) { // the browser shows it beside the button
    link.setCustomValidity("Select at least one first.");
    link.reportValidity();
    setTimeout(() => link.setCustomValidity(""), 3000);
  }
});
addEventListener("storage", show); // another tab
addEventListener("pageshow", show); // Back
show();

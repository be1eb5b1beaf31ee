// A line that says that the box after it scrolls sideways, where it does.
import { $$ } from "./dom.js";

const watch = new ResizeObserver((entries) => {
  for (const { target } of entries) target.previousElementSibling.hidden = target.scrollWidth <= target.clientWidth + 1;
});

function watchBoxes() {
  for (const line of $$("[data-sideways]")) watch.observe(line.nextElementSibling);
}
document.addEventListener("swap", watchBoxes);
watchBoxes();

// One's own pair: the form is sent without leaving the page.
import { showProgress } from "./progress.js";
import { imageForm, post } from "./drop.js";
import { $ } from "./dom.js";

const { imageForm: part, noun } = $("[data-image-form]")?.dataset ?? {};
if (part) showProgress(part, `The model reads the ${noun}`, `Stopped: the ${noun} was not read. Try again to read it.`);
imageForm(post);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.matches("[data-image-form] textarea")) event.target.form.requestSubmit();
});

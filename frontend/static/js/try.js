// One's own pair: the form is sent without leaving the page.
import { imageForm, post } from "./drop.js";

imageForm(post);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.matches("[data-image-form] textarea")) event.target.form.requestSubmit();
});

// The search page: drop or paste an image, and keep the page while the model works.
import { query, swap } from "./app.js";
import { $, h, say } from "./dom.js";

const form = $("#search-form");
const drop = $("[data-drop]");
const file = $("#image");

function take(files) {
  const image = [...files].find((one) => one.type.startsWith("image/"));
  if (!image) { say("This file is not an image."); return; }
  const data = new DataTransfer();
  data.items.add(image);
  file.files = data.files;
  preview();
  form.requestSubmit();
}

/** Show the selected image as a data URL: the server's policy allows no other local address. */
function preview() {
  const [image] = file.files;
  drop.querySelectorAll("img, input[name=sample_key], p").forEach((old) => old.remove());
  if (!image) return;
  const reader = new FileReader();
  reader.onload = () => drop.prepend(h("img", { src: reader.result, alt: `Selected image ${image.name}` }));
  reader.readAsDataURL(image);
}

for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => { event.preventDefault(); if (!file.disabled) take(event.dataTransfer.files); });
document.addEventListener("paste", (event) => { if (event.clipboardData.files.length && !file.disabled) take(event.clipboardData.files); });
file.addEventListener("change", () => { preview(); if (file.files.length) form.requestSubmit(); });

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const [image] = file.files;
  if (image) { // an image has no address: post it, and leave the address bar unchanged
    await swap(form.action, "results", { history: null, init: { method: "POST", body: new FormData(form) } });
  } else {
    const parameters = query(form);
    await swap(`${form.action.split("?")[0]}?${parameters}`, "results");
  }
});

// The search page: drop or paste a picture, keep the page while the model works.
import { query, swap } from "./app.js";
import { $, h, say } from "./dom.js";

const form = $("#search-form");
const drop = $("[data-drop]");
const file = $("#image");

function take(files) {
  const picture = [...files].find((one) => one.type.startsWith("image/"));
  if (!picture) { say("That is not a picture."); return; }
  const data = new DataTransfer();
  data.items.add(picture);
  file.files = data.files;
  preview();
  form.requestSubmit();
}

/** Show the chosen picture from its bytes: a data URL, since the policy of this server allows no other local address. */
function preview() {
  const [picture] = file.files;
  drop.querySelectorAll("img, input[name=sample_key], p").forEach((old) => old.remove());
  if (!picture) return;
  const reader = new FileReader();
  reader.onload = () => drop.prepend(h("img", { src: reader.result, alt: `Chosen picture ${picture.name}` }));
  reader.readAsDataURL(picture);
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
  const [picture] = file.files;
  if (picture) { // bytes have no address: post them, and leave the words in the address bar
    await swap(form.action, "results", { push: false, init: { method: "POST", body: new FormData(form) } });
  } else {
    const asked = query(form);
    await swap(`${form.action.split("?")[0]}?${asked}`, "results");
  }
});

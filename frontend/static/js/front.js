// The front page: an image that is pasted, or dropped anywhere, is searched for.
import { $, errorMessage, url } from "./dom.js";
import { upload } from "./live.js";

async function search(files) {
  const image = [...files].find((file) => file.type.startsWith("image/"));
  if (!files.length) return;
  const note = $("[data-testid=front-note]");
  try {
    if (!image) throw new Error(`${files[0].name} is not an image: drop a PNG, JPEG, WebP or GIF file.`);
    location.assign(url("/search", { image: (await upload(image)).hash }));
  } catch (error) {
    note.textContent = errorMessage(error);
    note.className = "note error";
  }
}

document.addEventListener("dragover", (event) => { if ([...event.dataTransfer.types].includes("Files")) event.preventDefault(); });
document.addEventListener("drop", (event) => {
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  search(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => search(event.clipboardData.files));

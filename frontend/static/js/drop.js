// A form that takes an image: chosen, or dropped or pasted anywhere on the page.
import { swap } from "./app.js";
import { $, $$, say } from "./dom.js";
import { whenLoaded } from "./live.js";

// Without the model a page may have none.
const form = () => $("[data-image-form]");
const file = () => $("[data-image-form] input[type=file]");

/** Give the form the image among these files and send it; a sentence where there is none. */
function take(files) {
  if (!files.length || !file()) return; // a store of texts takes no image
  const image = [...files].find((file) => file.type.startsWith("image/"));
  if (file().disabled) { refuse("The model is not ready, so an image cannot be read now."); return; }
  if (!image) { refuse(`${files[0].name} is not an image: drop a PNG, JPEG, WebP or GIF file.`); return; }
  const data = new DataTransfer();
  data.items.add(image);
  file().files = data.files;
  form().requestSubmit();
}

function refuse(sentence) {
  const note = $("[data-drop-note]", form());
  note.textContent = sentence;
  note.hidden = false;
  say(sentence);
}

const holdsFiles = (event) => file() && [...(event.dataTransfer?.types ?? [])].includes("Files");
const over = (on) => $("[data-image-form] [data-drop]")?.classList.toggle("over", on);
document.addEventListener("dragover", (event) => { if (holdsFiles(event)) { event.preventDefault(); over(true); } });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) over(false); });
document.addEventListener("drop", (event) => {
  over(false);
  if (!holdsFiles(event)) return;
  event.preventDefault();
  take(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));
document.addEventListener("change", (event) => { if (event.target === file() && event.target.files.length) form().requestSubmit(); });

/**
 * Send the form when it is submitted, by `send(form, submitter)`; its part of the page follows.
 * @param {(form: HTMLFormElement, submitter?: HTMLElement) => void} send
 */
export function imageForm(send) {
  const enable = () => { for (const control of $$("[data-image-form] [data-when-ready]")) control.disabled = form().dataset.liveState !== "ready"; };
  document.addEventListener("submit", (event) => {
    if (!form() || event.target !== form()) return;
    event.preventDefault();
    send(form(), event.submitter);
  });
  document.addEventListener("swap", enable);
  enable();
  if (form()?.dataset.liveState === "loading") whenLoaded(renew);
}

/** Show the form of a model that is ready, with what was typed while it loaded. */
async function renew() {
  const old = form();
  await swap(location.href, old.dataset.imageForm, { history: null });
  for (const field of $$("textarea, [type=search], [type=checkbox]", old)) {
    const next = form()?.elements[field.name];
    if (next && next !== field) { next.value = field.value; next.checked = field.checked; }
  }
}

/** Post the form, and show its part of the page that answers. */
export function post(form, submitter) {
  return swap(form.action, form.dataset.imageForm, { init: { method: "POST", body: new FormData(form, submitter) } });
}

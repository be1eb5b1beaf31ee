// The page of an answer. The server renders every state; this module asks at once if the address names what to read,
// uploads an image, and lets the pointer and the keys choose patches to paint over.
import { swap } from "./app.js";
import { showProgress } from "./progress.js";
import { $, $$, errorMessage, h, url } from "./dom.js";
import { upload, whenLoaded } from "./live.js";
import { wirePaint } from "./paint.js";
import { parse } from "./patches.js";

function wire() {
  const root = $("#explain");
  const input = $("[data-upload]", root);
  input?.addEventListener("change", () => hold(input));
  const question = $("[data-ask] [name=prompt]", root);
  question.form.addEventListener("submit", () => { if (!question.value) question.value = " "; }); // an empty field would be left out
  const test = $("[data-test]", root);
  if (!test) return;
  test.addEventListener("change", () => count(test));
  count(test);
  const field = $("[data-patches]", test);
  if (field) for (const frame of $$("[data-image]", root)) wirePaint(frame, JSON.parse(root.dataset.views), field, () => count(test));
}

/** Say beside the button what is chosen. */
function count(test) {
  const features = $$("[name=ablate]", test).filter((box) => box.type === "hidden" || box.checked).length;
  const field = $("[data-patches]", test); // of a prompt with an image
  const patches = parse(field?.value ?? "").size;
  const counts = [[features, "feature", "features"], [patches, "patch", "patches"]].filter(([n]) => n).map(([n, singular, plural]) => `${n} ${n === 1 ? singular : plural}`);
  $("[data-picked]", test).textContent = counts.join(", ") || `Tick features above${field ? ", or choose patches on the image" : ""}.`;
}

async function hold(input) {
  const [file] = input.files;
  if (!file) return;
  try {
    const { hash } = await upload(file);
    const { prompt, max_tokens: maxTokens } = Object.fromEntries(new FormData(input.form));
    swap(url("/explain", { image: hash, prompt, max_tokens: maxTokens, ask: 1 }), "explain");
  } catch (error) {
    input.value = "";
    $(".note.error", input.form)?.remove();
    input.form.append(h("p", { class: "note error", role: "alert" }, errorMessage(error)));
  }
}

/** Show the form of a model that is ready. What was typed meanwhile stays, and is asked when its button is pressed. */
async function renew() {
  const typed = [...$("[data-ask]").elements].filter((field) => field.matches("input:not([type=hidden], [type=file]), textarea") && field.value !== field.defaultValue);
  if (!typed.length) { location.reload(); return; }
  await swap(location.href, "explain", { history: null });
  for (const { name, value } of typed) $("[data-ask]").elements[name].value = value;
  $("[data-testid=model-unavailable]")?.remove();
}

showProgress("explain", "The model is asked", "Cancelled: the model was stopped before it had answered. Ask again for an answer.");

wire();
document.addEventListener("swap", (event) => { if (event.target.id === "explain") wire(); });
const { auto, liveState } = $("#explain").dataset;
if (liveState === "loading") whenLoaded(renew);
else if (auto !== undefined) { // the address names what to read: ask at once
  const to = new URL(location.href);
  to.searchParams.set("ask", "1");
  swap(to.href, "explain", { history: "replace" });
}

// What one writes is kept in this browser until the server has it. The panel "Notes" saves without leaving the page.
import { $, $$, errorMessage, h, pageOf, refusal, say } from "./dom.js";
import "./new_list.js";

const FORMS = "form[data-save], form[data-draft]";
const keyOf = (form) => `draft ${new URL(form.action).search} ${form.dataset.draft ?? `${form.elements.kind.value} ${form.elements.key.value}`}`;
const fields = (form) => [...form.elements].filter((field) => field.name && field.name !== "author" && !["hidden", "submit"].includes(field.type));
const values = (form) => Object.fromEntries(fields(form).map((field) => [field.name, field.type === "checkbox" ? field.checked : field.value]));

function fill(form, draft) {
  for (const field of fields(form)) {
    if (field.type === "checkbox") field.checked = draft[field.name] ?? field.checked;
    else field.value = draft[field.name] ?? field.value;
  }
}

function drafts(work) {
  try { return work(localStorage); } catch { return null; } // a private window, or no room: the page itself keeps it
}
const read = (key) => JSON.parse(drafts((store) => store.getItem(key)) ?? "null");
const forget = (form) => drafts((store) => store.removeItem(keyOf(form)));
const keep = (form) => drafts((store) => store.setItem(keyOf(form), JSON.stringify({ typed: values(form), version: form.elements.version.value })));

function note(form, text, ...more) {
  const line = $("[data-saved]", form);
  line.hidden = !text;
  line.replaceChildren(text, ...more);
}

/** Show what was typed before and not saved, and let it be discarded. */
function ready(form) {
  const savedValues = values(form), version = form.elements.version.value;
  if (form.closest("[data-conflict]")) { keep(form); return; }
  const draft = read(keyOf(form)), key = keyOf(form).replace(/ list .*/, " list new");
  if (read(key)?.typed.title === savedValues.title && savedValues.title) drafts((store) => store.removeItem(key)); // a new list that is saved now
  if (!draft || JSON.stringify(draft.typed) === JSON.stringify(savedValues)) { forget(form); return; }
  fill(form, draft.typed);
  const isChanged = draft.version !== version;
  if ("save" in form.dataset) form.elements.version.value = draft.version; // what was written meanwhile is told on saving
  note(form, isChanged ? "Not saved yet, and changed by somebody meanwhile. " : "Not saved yet. ", h("button", { type: "button", class: "link", "data-testid": "discard", onclick() {
    fill(form, savedValues);
    form.elements.version.value = version;
    forget(form);
    note(form, "");
  } }, isChanged ? "Show what is saved" : "Discard"));
}

async function save(form, button) {
  const panel = form.closest("#notes");
  const body = new FormData(form, button);
  panel.setAttribute("aria-busy", "true");
  $(":scope > .note.error", panel)?.remove();
  try {
    const response = await fetch(form.action, { method: "POST", body, headers: { Accept: "text/html" } });
    const page = await pageOf(response);
    const newPanel = page.getElementById("notes");
    if (!newPanel) throw new Error(refusal(page, response));
    if (response.ok) forget(form);
    const title = page.querySelector("[data-title]");
    if (response.ok && title) $("[data-title]")?.replaceWith(document.adoptNode(title));
    panel.replaceWith(document.adoptNode(newPanel));
    for (const max of $$("[data-max]", newPanel)) max.hidden = false;
    const newForm = $("form[data-save]", newPanel);
    ready(newForm);
    if (response.ok) note(newForm, "Saved");
    say(response.ok ? "Saved" : $("[data-testid=conflict] p", newPanel).textContent);
    $(`[value=${button?.value ?? "save"}]`, newPanel)?.focus();
  } catch (error) {
    const text = `${errorMessage(error)} What you typed is kept in this browser.`;
    panel.prepend(h("p", { class: "note error", role: "alert", "data-testid": "save-error" }, text));
  } finally {
    document.getElementById("notes")?.removeAttribute("aria-busy");
  }
}

document.addEventListener("input", ({ target }) => {
  const form = target.closest(FORMS);
  if (form && fields(form).includes(target)) { keep(form); note(form, "Not saved yet"); }
});
document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-save]");
  if (!form) return;
  event.preventDefault();
  save(form, event.submitter);
});
document.addEventListener("click", ({ target }) => {
  const link = target.closest("[data-discard]");
  if (link) forget($("form[data-save]", link.closest("#notes")));
});
document.addEventListener("keydown", (event) => { // Ctrl + Enter in any of its fields
  const form = event.target.closest?.(FORMS);
  if (form && event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit($("[value=save], button.main", form));
});
for (const form of $$(FORMS)) ready(form);

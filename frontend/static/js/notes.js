// The panel "Notes": saves without leaving the page, and keeps what is typed in this browser until the server has it.
import { $, $$, errorMessage, h, say } from "./dom.js";

const FIELDS = ["label", "tags", "note", "reviewed"];
const field = (form, name) => form.elements[name];
const keyOf = (form) => `draft ${new URL(form.action).search} ${field(form, "kind").value} ${field(form, "key").value}`;

function values(form) {
  return Object.fromEntries(FIELDS.map((name) => [name, name === "reviewed" ? field(form, name).checked : field(form, name).value]));
}

function fill(form, typed) {
  for (const name of FIELDS) {
    if (name === "reviewed") field(form, name).checked = typed[name];
    else field(form, name).value = typed[name];
  }
}

function drafts(work) {
  try { return work(localStorage); } catch { return null; } // a private window, or no room: the page itself keeps it
}
const forget = (form) => drafts((store) => store.removeItem(keyOf(form)));

function note(form, text, ...more) {
  const line = $("[data-saved]", form);
  line.hidden = !text;
  line.replaceChildren(text, ...more);
}

/** Show what was typed before and not saved, and let it be discarded. */
function ready(panel) {
  const form = $("form[data-save]", panel);
  const saved = values(form);
  if ("conflict" in panel.dataset) { keep(form); return; }
  const draft = JSON.parse(drafts((store) => store.getItem(keyOf(form))) ?? "null");
  if (!draft || JSON.stringify(draft.typed) === JSON.stringify(saved)) { forget(form); return; }
  fill(form, draft.typed);
  field(form, "version").value = draft.version; // what was written meanwhile is told before it is overwritten
  note(form, "Not saved yet. ", h("button", { type: "button", class: "link", "data-testid": "discard", onclick() {
    fill(form, saved);
    field(form, "version").value = panel.dataset.version;
    forget(form);
    note(form, "");
  } }, "Discard"));
}

function keep(form) {
  const draft = JSON.stringify({ typed: values(form), version: field(form, "version").value });
  drafts((store) => store.setItem(keyOf(form), draft));
}

async function save(form, button) {
  const panel = form.closest("#notes");
  const body = new FormData(form, button);
  panel.setAttribute("aria-busy", "true");
  $(":scope > .note.error", panel)?.remove();
  try {
    const response = await fetch(form.action, { method: "POST", body, headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.getElementById("notes");
    if (!fresh) throw new Error($("[data-error]", page)?.textContent ?? `The server answered ${response.status}.`);
    if (response.ok) forget(form);
    const title = page.querySelector("[data-title]");
    if (response.ok && title) $("[data-title]")?.replaceWith(document.adoptNode(title));
    panel.replaceWith(document.adoptNode(fresh));
    for (const max of $$("[data-max]", fresh)) max.hidden = false;
    ready(fresh);
    if (response.ok) note($("form", fresh), "Saved");
    say(response.ok ? "Saved" : $("[data-testid=conflict] p", fresh).textContent);
    $(`[value=${button?.value ?? "save"}]`, fresh)?.focus();
  } catch (error) {
    const text = `${errorMessage(error)} What you typed is kept in this browser.`;
    panel.prepend(h("p", { class: "note error", role: "alert", "data-testid": "save-error" }, text));
  } finally {
    document.getElementById("notes")?.removeAttribute("aria-busy");
  }
}

document.addEventListener("input", ({ target }) => {
  const form = target.closest("form[data-save]");
  if (form && FIELDS.includes(target.name)) { keep(form); note(form, "Not saved yet"); }
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
  const form = event.target.closest?.("form[data-save]");
  if (form && event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit($("[value=save]", form));
});
ready($("#notes"));

// On every page: partial updates, keys, panels that fill the window. Pages work without it.
import { $, $$, errorMessage, h, isPlain, pageOf, refusal, say } from "./dom.js";
import "./basket.js";
import "./keys.js";
import "./trail.js";

for (const toggle of $$("[data-theme-toggle]")) toggle.hidden = false;

/**
 * Fetch a page of this server, replace the element with this id by the one of that page, and update the address bar.
 * Dispatches "swap" on the new element, so that a page's module can add its handlers; "busy" and "idle" around it.
 *
 * @param {{history?: "push" | "replace" | "back" | null, init?: object, background?: boolean}} options `push` for what one chooses, so that Back
 *   undoes it; `replace` while one types or drags; `back` on the way through the history; null where the address stays. Such a
 *   one, and one in the background, ends no other part's request, and no other part's ends it.
 */
const running = new Map(); // id → its request
const origin = new WeakMap(); // by part that was fetched: the address of the page that it is a part of
const swaps = new Set(); // ids of the parts that Back and Forward must fetch again
let shownUrl = location.pathname + location.search;
const STOPPED = new DOMException("Stopped by the visitor.", "AbortError");
/** End the request for a part; dispatches "stopped" on it. */
export const stopSwap = (id) => running.get(id)?.control.abort(STOPPED);
export async function swap(address, id, { history: how = "push", init = {}, background = false } = {}) {
  const old = document.getElementById(id);
  if (!background) swaps.add(id);
  const control = new AbortController();
  const alone = background || !how;
  for (const [part, request] of running) if (part === id || !(alone || how === "back" || request.alone)) request.control.abort(); // Back fetches all parts, one after the other
  running.set(id, { control, alone });
  const note = (text, retry) => h("p", { class: "note error", role: "alert" }, text, retry && " ", retry && h("button", { type: "button", onclick: () => swap(address, id, { history: how, init, background }) }, "Try again"));
  old.setAttribute("aria-busy", "true");
  old.dispatchEvent(new CustomEvent("busy", { bubbles: true }));
  try {
    const response = await fetch(address, { ...init, signal: control.signal, headers: { Accept: "text/html" } });
    const page = await pageOf(response);
    const next = page.getElementById(id);
    if (!next && response.redirected) { location.assign(response.url); return; } // another page answers: a feature by its number
    if (!next) { // an error page: show its sentence here
      old.replaceChildren(note(refusal(page, response), response.status >= 500));
      return;
    }
    if (how === "back") $$(`form[data-swap="${id}"]`).forEach((form, i) => restore(form, $$(`form[data-swap="${id}"]`, page)[i]));
    const focus = old.contains(document.activeElement) ? document.activeElement : null;
    const fullPanel = $$(".panel.max").find((panel) => old.contains(panel));
    next.inert = old.inert;
    old.replaceWith(document.adoptNode(next));
    if (fullPanel) fill(fullPanel === old ? next : fullPanel, fullPanel === old);
    const to = response.url || address;
    if (how === "push" || how === "replace") history[how === "push" && to !== location.href ? "pushState" : "replaceState"]({ swapped: [...swaps] }, "", to);
    shownUrl = location.pathname + location.search;
    if (how) origin.set(next, location.href);
    document.documentElement.classList.toggle("spotlight", new URLSearchParams(location.search).get("heat") === "spotlight");
    ready(next);
    next.dispatchEvent(new CustomEvent("swap", { bubbles: true }));
    if (focus) refocus(focus, next); // after the page's module has added its elements
    if (next.dataset.say) say(next.dataset.say);
  } catch (error) {
    if (error.name === "AbortError") { if (control.signal.reason === STOPPED) old.dispatchEvent(new CustomEvent("stopped", { bubbles: true })); return; }
    $(":scope > .note.error", old)?.remove();
    old.prepend(note(errorMessage(error), true));
  } finally {
    if (running.get(id)?.control === control) { // no later one of this part
      running.delete(id);
      const part = document.getElementById(id);
      part?.removeAttribute("aria-busy");
      part?.dispatchEvent(new CustomEvent("idle", { bubbles: true }));
    }
  }
}

/** Give a form that stays the values that it has on the page just fetched. */
function restore(form, source) {
  [...form.elements].forEach((control, i) => {
    const { name, value, checked } = source?.elements[i] ?? {};
    if (name !== control.name || control.type === "file") return;
    control.value = value;
    if (checked !== undefined) control.checked = checked;
  });
}

/** Move the focus from a control that was replaced to the same control in the new part. */
function refocus(control, part) {
  const { testid, feature, position } = control.dataset;
  const selector = control.id ? `#${CSS.escape(control.id)}` : testid ? `[data-testid="${testid}"]` : control.name ? `[name="${control.name}"]` : "";
  const place = (feature ? `[data-feature="${feature}"]` : "") + (position ? `[data-position="${position}"]` : "");
  if (selector || place) part.querySelector(selector + place)?.focus({ preventScroll: true });
}

/** Scroll to the panel of a heading that a link has opened, and move the focus there. @param {string} [id] */
function reveal(id) {
  const heading = id && document.getElementById(id);
  if (!heading) return;
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
  (heading.closest(".panel") ?? heading).scrollIntoView();
}

const startUrl = location.href;
/** The address of this page with what a link of it changes: other parts may have changed since the link was made. */
function changed(link) {
  const to = new URL(link.href.baseVal ?? link.href, location.href); // baseVal: a link in a drawing
  let part = link;
  while (part && !origin.has(part)) part = part.parentElement;
  const from = new URL(origin.get(part) ?? startUrl), now = new URL(location.href);
  if (to.pathname !== now.pathname || from.pathname !== now.pathname) return to.href;
  for (const name of new Set([...from.searchParams.keys(), ...to.searchParams.keys()])) {
    const values = to.searchParams.getAll(name);
    if (values.join("\n") === from.searchParams.getAll(name).join("\n")) continue;
    now.searchParams.delete(name);
    for (const value of values) now.searchParams.append(name, value);
  }
  now.hash = to.hash;
  return now.href.replaceAll("%2C", ","); // as the server writes lists
}

/** Set up a part of a page, also a part that has just been fetched. */
function ready(part) {
  for (const button of $$("[data-max]", part)) button.hidden = false;
  for (const box of $$(".scroll", part)) if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; // so that keys can scroll it
}
ready(document);

document.addEventListener("click", (event) => {
  if (event.defaultPrevented || !isPlain(event)) return;
  const link = event.target.closest("a[data-swap]");
  if (link) { event.preventDefault(); swap(changed(link), link.dataset.swap).then(() => reveal(link.dataset.show)); return; }
  const leave = event.target.closest("a[data-leave]");
  if (leave) leave.href = changed(leave);
  const maximise = event.target.closest("[data-max]");
  if (maximise) fill(maximise.closest(".panel"));
  const copy = event.target.closest("[data-copy]");
  if (copy) navigator.clipboard.writeText($(copy.dataset.copy).textContent).then(() => say("Copied"), () => say("This browser does not let pages copy: select the text."));
});

document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-swap]");
  if (!form || form.method !== "get") return;
  event.preventDefault();
  const how = "typing" in form.dataset ? "replace" : "push";
  delete form.dataset.typing;
  const to = new URL(`${form.action}?${query(form)}`), current = new URLSearchParams(location.search);
  for (const name of ["tour", "heat"]) if (current.has(name)) to.searchParams.set(name, current.get(name));
  swap(to.href, form.dataset.swap, { history: how });
});

// Back and Forward between states of one page fetch its parts again; each entry knows which parts had changed.
addEventListener("popstate", async (event) => {
  if (location.pathname + location.search === shownUrl) return; // only the anchor changed
  const parts = new Set([...swaps, ...(event.state?.swapped ?? [])].filter((id) => document.getElementById(id)));
  if (!parts.size) location.reload();
  for (const id of parts) await swap(location.href, id, { history: "back" });
});

/** A form's query string without empty fields, so that addresses are short and unique. */
export function query(form) {
  const fields = [...new FormData(form)].filter(([, value]) => typeof value === "string" && value !== "");
  return new URLSearchParams(fields).toString();
}

let timer;
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-autosubmit]")) event.target.form.requestSubmit();
});
document.addEventListener("input", (event) => {
  if (!event.target.matches("[data-live]")) return;
  clearTimeout(timer);
  timer = setTimeout(() => {
    const { form } = event.target;
    if (!form) return;
    form.dataset.typing = "";
    form.requestSubmit();
  }, 300);
});

/** Let a panel fill the window, or give it back its place; what lies behind it cannot be reached meanwhile. */
function fill(panel, on = !panel.classList.contains("max")) {
  panel.classList.toggle("max", on);
  $("[data-max]", panel)?.setAttribute("aria-pressed", on);
  for (const part of $$("[inert]")) part.inert = false;
  for (let part = panel; on && part !== document.body; part = part.parentElement) {
    for (const child of part.parentElement.children) child.inert = child !== part && !child.matches("dialog, [role=status]");
  }
}

document.addEventListener("keydown", (event) => {
  const panel = event.key === "Escape" && $(".panel.max");
  if (panel) fill(panel);
});

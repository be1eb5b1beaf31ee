// Helpers of all modules. Text is always inserted as text, never as markup.

const root = document.documentElement;

/** Create an element: h("p", {class: "x", onclick: f, data-a: 1}, "text", child …). */
export function h(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "rect", "line", "title", "g"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child || child === 0));
  return element;
}

export const $ = (selector, within = document) => within.querySelector(selector);
export const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

/** Address of a page or endpoint of this server, with the store of this page. */
export function url(path, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const item of Array.isArray(value) ? value : [value]) if (item !== null && item !== undefined && item !== "") query.append(name, item);
  }
  if (root.dataset.store) query.set("store", root.dataset.store);
  const text = query.toString();
  return root.dataset.base + path + (text ? `?${text}` : "");
}

/** A reply; problem details become an Error with their sentence. */
export async function ask(address, init) {
  const response = await fetch(address, init);
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Error(body.detail || body.title || answered(response));
}
const answered = (response) => `The server answered ${response.status}.`;

/** A reply of the API as JSON. */
export const api = async (path, params, init) => (await ask(url(`/api/v1${path}`, params), init)).json();

/** A page as a document. */
export const pageOf = async (response) => new DOMParser().parseFromString(await response.text(), "text/html");
/** The sentence of an error page. */
export const refusal = (page, response) => $("[data-error]", page)?.textContent ?? answered(response);

/** Whether a click opens no other tab. */
export const isPlain = (event) => !(event.button || event.metaKey || event.ctrlKey || event.shiftKey);

/** The message for an error. `fetch` fails with a TypeError, whose words differ between browsers. */
export function errorMessage(error) {
  return error instanceof TypeError ? "The server cannot be reached. Is it still running?" : error.message;
}

/** The name of a feature as text, {text, weak}: its description where the label fails its test (macros.html, name_text). */
export function nameOf(f) {
  if (f.own_label) return { text: f.own_label, weak: false };
  const weak = !(f.label_score >= Number(root.dataset.goodName));
  return { text: (weak && f.description) || f.label || "unlabelled", weak };
}

/** Turn a class of the document on or off, and keep it for the pages of this tab (theme.js). */
export function flip(name) {
  const on = root.classList.toggle(name);
  try { if (on) sessionStorage.setItem(name, "1"); else sessionStorage.removeItem(name); } catch { /* a private window: it holds for this page */ }
  return on;
}

let region;
/** Announce a sentence to screen readers. */
export function say(text) {
  region ??= document.body.appendChild(h("p", { class: "sr", role: "status", "aria-live": "polite" }));
  region.textContent = text;
}

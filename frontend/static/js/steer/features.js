// The features of a run: found by word or number, each with its mode and its strength.
import { html, useEffect, useRef, useState } from "../../vendor/htm/preact/standalone.module.js";
import { $$, api, ask, errorMessage, nameOf, pageOf, url } from "../dom.js";

const MODES = { add: "add", set: "set to", ablate: "ablate" };
const LEAST_END = 10; // of the slider, in units of p99.9
const MOST = 100; // the largest strength that the API takes
const LISTED = 8;

export const settingOf = (f) => `${f.mode === "ablate" ? "ablated" : `${f.mode === "set" ? "set to " : ""}${f.strength} ×`}${f.family ? " with its family" : ""}`;

/** Cards of features with these words, as the search page draws and orders them. */
async function cardsOf(words) {
  const page = await pageOf(await ask(url("/search", { q: words }), { headers: { Accept: "text/html" } }));
  return $$("[data-testid=word-features] > li", page).slice(0, LISTED).map((card) => ({ id: Number(card.dataset.feature), card }));
}

/** A feature as the page starts with it: its name, and a strength below the cap. */
async function load(id) {
  const [f, start] = await Promise.all([api(`/features/${id}`), api("/steer/start", { feature: id })]);
  return { id: f.id, own_label: f.own_label, label: f.label, label_score: f.label_score, description: f.description, n_members: f.n_members, mode: "add", strength: start.strength, cap: start.cap, family: false };
}

/** A card of the search page, with a button that adds its feature. */
function Card({ hit, add }) {
  const place = useRef(null);
  useEffect(() => { place.current.replaceChildren(...[...hit.card.cloneNode(true).childNodes]); }, [hit]);
  return html`<li class="card feature"><div class="stack" ref=${place}></div>
    <button type="button" onClick=${add} aria-label=${`Add feature ${hit.id}`} data-testid="steer-found">+ Add</button></li>`;
}

function Find({ add }) {
  const [words, setWords] = useState("");
  const [hits, setHits] = useState([]);
  const [note, setNote] = useState("");
  const take = async (id) => {
    try { add(await load(id)); setHits([]); setWords(""); setNote(""); } catch (error) { setNote(errorMessage(error)); }
  };
  const look = async (event) => {
    event.preventDefault();
    const number = /^\s*#?(\d+)\s*$/.exec(words)?.[1];
    if (number) { take(number); return; }
    if (!words.trim()) return;
    try {
      const cards = await cardsOf(words);
      setHits(cards);
      setNote(cards.length ? "" : "No feature has these words: try others, or a number.");
    } catch (error) { setHits([]); setNote(errorMessage(error)); }
  };
  return html`<form class="row" onSubmit=${look}>
      <label class="sr" for="find">Feature by word or number</label>
      <input id="find" name="q" type="search" class="grow" value=${words} onInput=${(e) => { setWords(e.target.value); if (!e.target.value) { setHits([]); setNote(""); } }} placeholder="word or number" autocomplete="off" data-testid="steer-find" />
      <button data-testid="steer-find-button">Find</button>
    </form>
    ${note && html`<p class="small soft section-tight" role="status">${note}</p>`}
    ${hits.length > 0 && html`<ul class="grid features section-tight">${hits.map((hit) => html`<${Card} hit=${hit} key=${hit.id} add=${() => take(hit.id)} />`)}</ul>`}`;
}

const short = (x) => `${x < 0 ? "−" : ""}${Number(Math.abs(x).toFixed(1))}`;

/** The strength as a number and a slider; grey where Δ is scaled down to the norm of a usual h. */
function Strength({ f, change }) {
  const end = Math.min(MOST, Math.max(LEAST_END, Math.ceil((f.cap ?? 0) * 1.25), Math.ceil(Math.abs(f.strength))));
  const least = f.mode === "set" ? 0 : -end;
  const cap = f.cap && f.cap < end ? f.cap : null;
  const typed = (value) => { if (value !== "" && Math.abs(Number(value)) <= MOST && Number(value) >= (f.mode === "set" ? 0 : -MOST)) change(Number(value)); };
  return html`<div class="full strength">
    <label class="number"><span class="sr">Strength of feature ${f.id} as a number</span><input type="number" min=${f.mode === "set" ? 0 : -MOST} max=${MOST} step="any" value=${f.strength} onInput=${(e) => typed(e.target.value)} data-testid="steer-number" /><span class="tiny soft">× p99.9</span></label>
    <div class="track"><input type="range" min=${least} max=${end} step="0.25" value=${f.strength} aria-label=${`Strength of feature ${f.id}`} onInput=${(e) => change(Number(e.target.value))} data-testid="steer-strength" />
    <svg class="cap" viewBox=${`${least} 0 ${end - least} 1`} preserveAspectRatio="none" role="img" aria-label=${cap ? `Capped beyond about ${short(cap)}` : "No cap within the slider"} data-testid="steer-cap">
      <rect class="filled" x=${Math.min(0, f.strength)} width=${Math.abs(f.strength)} height="1" />${cap && html`<rect x=${cap} width=${end - cap} height="1" />`}${cap && least < 0 && html`<rect x=${least} width=${end - cap} height="1" />`}</svg>
      <p class="ends tiny soft" data-testid="steer-ends"><span>${short(least)}</span>${least < 0 && html`<span>0</span>`}<span>${short(end)}</span></p></div>
    ${cap && html`<p class="tiny soft note-cap">Beyond about ${short(cap)} × (grey) the change is capped.</p>`}
  </div>`;
}

/** Near-copies of a feature, steered with it. */
function WithFamily({ f, change }) {
  const shared = f.mode === "add" ? "share this strength, scaled so that h changes as much (‖Δ‖) as with this feature alone" : f.mode === "set" ? "are each set to this strength" : "are ablated too";
  return html`<div class="full"><label class="check"><input type="checkbox" checked=${f.family} onChange=${(e) => change(e.target.checked)} data-testid="steer-family" /> with its family of ${f.n_members}</label>
    ${f.family && html` <span class="tiny soft">Its near-copies ${shared}.</span>`}</div>`;
}

export function Features({ features, change }) {
  const edit = (index, part) => change(features.map((f, i) => (i === index ? { ...f, ...part } : f)));
  const add = (f) => change([...features.filter((other) => other.id !== f.id), f]);
  return html`<section class="panel" aria-labelledby="sf-h">
    <header><h2 id="sf-h">Features</h2></header>
    <${Find} add=${add} />
    ${features.length === 0 && html`<p class="empty section-tight">No feature is selected. Find one by word or number.</p>`}
    <ul>${features.map((f, index) => html`<li class="pick" key=${f.id} data-testid="steer-feature">
      <a class="label" href=${url(`/features/${f.id}`)}><bdi>${nameOf(f).text}</bdi> <span class="feature-id">#${f.id}</span></a>
      <select aria-label=${`Mode of feature ${f.id}`} value=${f.mode} onChange=${(e) => edit(index, { mode: e.target.value })} data-testid="steer-mode">${Object.entries(MODES).map(([value, name]) => html`<option value=${value}>${name}</option>`)}</select>
      <button type="button" class="icon quiet" aria-label=${`Remove feature ${f.id}`} onClick=${() => change(features.filter((_, i) => i !== index))}>×</button>
      ${f.mode !== "ablate" && html`<${Strength} f=${f} change=${(strength) => edit(index, { strength })} />`}
      ${f.n_members > 1 && html`<${WithFamily} f=${f} change=${(family) => edit(index, { family })} />`}
    </li>`)}</ul>
  </section>`;
}

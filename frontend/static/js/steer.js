// The steering page: controls on the left, the default and the steered text side by side, streamed.
import { html, render, useEffect, useRef, useState } from "../vendor/htm/preact/standalone.module.js";
import { $, api, errorMessage, nameOf, problem, url } from "./dom.js";
import { events } from "./sse.js";

const MODES = { add: "add", set: "set to", ablate: "ablate" };
const SCOPES = { image: "image patches", prompt: "prompt text", generated: "generated text" };
const MIN_KL_RANGE = 0.1; // nats; the full height of the chart, if no step has more: so tiny values look tiny
const root = $("#steer");
const start = JSON.parse(root.dataset.state);

/** The state of the page as an address, so that a run can be shared. */
function address(state) {
  return url("/steer", {
    sample: state.sample, prompt: state.prompt, feature: state.features.map((f) => `${f.id}:${f.mode}:${f.strength}`),
    scope: state.scope.join(","), max_tokens: state.max_tokens, temperature: state.temperature, seed: state.seed,
  });
}

function Features({ features, change }) {
  const [words, setWords] = useState("");
  const [hits, setHits] = useState([]);
  const [note, setNote] = useState("");
  const look = async (event) => {
    event.preventDefault();
    if (!words.trim()) return;
    try {
      const byNumber = /^#?\d+$/.test(words.trim());
      const items = byNumber ? [await api(`/features/${words.trim().replace("#", "")}`)] : (await api("/features", { q: words, limit: 8 })).items;
      setHits(items);
      setNote(items.length ? "" : "No feature has this word in its label or promoted tokens.");
    } catch (error) { setHits([]); setNote(errorMessage(error)); }
  };
  const edit = (index, part) => change(features.map((f, i) => (i === index ? { ...f, ...part } : f)));
  const add = (f) => { change([...features.filter((one) => one.id !== f.id), { id: f.id, label: f.label, label_score: f.label_score, description: f.description, mode: "add", strength: 2 }]); setHits([]); setWords(""); };
  return html`<section class="panel" aria-labelledby="sf-h">
    <header><h2 id="sf-h">Features</h2></header>
    <form class="row" onSubmit=${look}>
      <label class="sr" for="find">Feature by word or number</label>
      <input id="find" type="search" class="grow" value=${words} onInput=${(e) => setWords(e.target.value)} placeholder="word or number" data-testid="steer-find" />
      <button data-testid="steer-find-button">Find</button>
    </form>
    ${note && html`<p class="small soft">${note}</p>`}
    ${hits.length > 0 && html`<p class="chips section-tight">${hits.map((f) => html`<button type="button" class="chip" key=${f.id} onClick=${() => add(f)} data-testid="steer-found">+ ${nameOf(f).text} #${f.id}</button>`)}</p>`}
    ${features.length === 0 && html`<p class="empty section-tight">No feature is selected. Find one by word or number.</p>`}
    <ul>${features.map((f, index) => html`<li class="pick" key=${f.id} data-testid="steer-feature">
      <a class="label" href=${url(`/features/${f.id}`)}><bdi>${nameOf(f).text}</bdi> <span class="feature-id">#${f.id}</span></a>
      <select aria-label=${`Mode of feature ${f.id}`} value=${f.mode} onChange=${(e) => edit(index, { mode: e.target.value })} data-testid="steer-mode">${Object.entries(MODES).map(([value, name]) => html`<option value=${value}>${name}</option>`)}</select>
      <output class="num">${f.mode === "ablate" ? "0" : `${f.strength} × p99.9`}</output>
      <button type="button" class="icon quiet" aria-label=${`Remove feature ${f.id}`} onClick=${() => change(features.filter((_, i) => i !== index))}>×</button>
      ${f.mode !== "ablate" && html`<input class="full" type="range" min=${f.mode === "set" ? 0 : -10} max="10" step="0.25" value=${f.strength} aria-label=${`Strength of feature ${f.id}`} onInput=${(e) => edit(index, { strength: Number(e.target.value) })} data-testid="steer-strength" />`}
    </li>`)}</ul>
  </section>`;
}

function Kl({ steps }) {
  if (!steps.length) return null;
  const largest = Math.max(...steps);
  const top = Math.max(largest, MIN_KL_RANGE);
  return html`<figure><svg class="hist" viewBox=${`0 0 ${Math.max(steps.length, 20) * 4} 40`} preserveAspectRatio="none" role="img" aria-label="KL divergence per step">
    ${steps.map((kl, i) => html`<rect class="b" x=${i * 4} width="3.4" y=${40 - (kl / top) * 38} height=${(kl / top) * 38}><title>${`step ${i + 1}: KL ${kl.toFixed(3)}`}</title></rect>`)}
    </svg><figcaption class="tiny soft">KL divergence of the steered from the unsteered model on the same prefix, per step; maximum ${largest < 0.01 ? "below 0.01" : largest.toFixed(2)} nats</figcaption></figure>`;
}

/** The body of POST /api/v1/steer. */
function requestBody(state, image) {
  const { prompt, scope, max_tokens, temperature, seed, sample } = state;
  const features = state.features.map(({ id, mode, strength }) => ({ id, mode, strength: mode === "ablate" ? 0 : strength }));
  return { prompt, scope, max_tokens, temperature, seed, features, ...(image ? { image } : sample ? { sample_id: sample } : {}) };
}

/** Stream the two answers into the state of a run; `setRun` takes a function from the old state to the new one. */
async function generate(body, signal, setRun) {
  try {
    const response = await fetch(url("/api/v1/steer"), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });
    if (!response.ok) throw new Error(await problem(response));
    for await (const { event: kind, data } of events(response.body)) {
      if (kind === "token") setRun((old) => ({ ...old, [data.channel]: old[data.channel] + data.text }));
      else if (kind === "kl") setRun((old) => ({ ...old, kl: [...old.kl, data.kl] }));
      else if (kind === "done") setRun((old) => ({ ...old, phase: "done", done: data }));
      else if (kind === "error") throw new Error(data.detail ?? data.message ?? "The model stopped with an error.");
    }
    setRun((old) => (old.phase === "running" ? { ...old, phase: "error", error: "The stream ended before the answer was complete." } : old));
  } catch (error) {
    setRun((old) => (error.name === "AbortError" ? { ...old, phase: "stopped" } : { ...old, phase: "error", error: errorMessage(error) }));
  }
}

/** While the model loads in the background, ask for its state, and reload the page when it changes. */
function reloadWhenLoaded() {
  if (root.dataset.liveState !== "loading") return undefined;
  const timer = setInterval(async () => {
    try { const { state } = await api("/live"); if (state !== "loading") location.reload(); } catch { /* try again */ }
  }, 3000);
  return () => clearInterval(timer);
}

function App() {
  const [state, setState] = useState(start);
  const [image, setImage] = useState(null);
  const [run, setRun] = useState({ phase: "idle", default: "", steered: "", kl: [], done: null, error: "" });
  const live = root.dataset.ready === "yes";
  const control = useRef(null);
  const set = (part) => setState((old) => ({ ...old, ...part }));

  useEffect(() => { history.replaceState(null, "", address(state)); }, [state]);
  useEffect(reloadWhenLoaded, []);

  const stop = () => control.current?.abort();
  const go = async (event) => {
    event.preventDefault();
    stop();
    control.current = new AbortController();
    setRun({ phase: "running", default: "", steered: "", kl: [], done: null, error: "" });
    await generate(requestBody(state, image), control.current.signal, setRun);
  };
  const pick = (event) => {
    const [file] = event.target.files;
    if (!file) { setImage(null); return; }
    const reader = new FileReader();
    reader.onload = () => setImage(reader.result);
    reader.readAsDataURL(file);
  };
  const busy = run.phase === "running";
  const imageUrl = image ?? (state.sample ? url("/api/v1/sample/image", { id: state.sample }) : null);

  return html`
  <form class="stack" onSubmit=${go}>
    <section class="panel" aria-labelledby="si-h"><header><h2 id="si-h">Input</h2></header>
      <div class="stack">
        ${imageUrl && html`<div class="pic steer-pic"><img src=${imageUrl} alt="Image that the model reads" /></div>`}
        <div class="row"><label class="field grow">Sample<input value=${state.sample ?? ""} onChange=${(e) => { setImage(null); set({ sample: e.target.value }); }} placeholder="sample id" data-testid="steer-sample" /></label>
          <label class="field grow">or your own image<input type="file" accept="image/*" onChange=${pick} data-testid="steer-image" /></label></div>
        <label class="field">Prompt<textarea rows="2" value=${state.prompt} onInput=${(e) => set({ prompt: e.target.value })} data-testid="steer-prompt"></textarea></label>
        <fieldset class="row"><legend class="tiny soft">Steer at</legend>${Object.entries(SCOPES).map(([value, name]) => html`<label class="check" key=${value}><input type="checkbox" checked=${state.scope.includes(value)} onChange=${(e) => set({ scope: e.target.checked ? [...state.scope, value] : state.scope.filter((s) => s !== value) })} data-testid=${`scope-${value}`} /> ${name}</label>`)}</fieldset>
        <div class="thirds-row">
          <label class="field">Maximum tokens<input type="number" min="1" max="256" value=${state.max_tokens} onInput=${(e) => set({ max_tokens: Number(e.target.value) })} /></label>
          <label class="field">Temperature<input type="number" min="0" max="2" step="0.1" value=${state.temperature} onInput=${(e) => set({ temperature: Number(e.target.value) })} /></label>
          <label class="field">Seed<input type="number" min="0" step="1" value=${state.seed} onInput=${(e) => set({ seed: Number(e.target.value) })} /></label>
        </div>
        <p class="row"><button class="main" disabled=${busy || !live || !state.features.length || !state.scope.length} data-testid="steer-go">${busy ? "Generating …" : "Steer"}</button>${busy && html`<button type="button" onClick=${stop} data-testid="steer-stop">Stop</button>`}</p>
      </div>
    </section>
  </form>
  <div class="stack">
    <${Features} features=${state.features} change=${(features) => set({ features })} />
    ${run.error && html`<p class="note error" role="alert" data-testid="steer-error">${run.error}</p>`}
    <${Answers} run=${run} busy=${busy} />
    <${Kl} steps=${run.kl} />
    ${run.done && html`<${Done} done=${run.done} />`}
  </div>`;
}

function Answers({ run, busy }) {
  return html`<div class="cols even" aria-live="polite" aria-busy=${false}>
      <section><h2>Default</h2><div class="out" data-testid="out-default">${run.default || html`<span class="soft">${busy ? "…" : "answer of the unchanged model"}</span>`}</div></section>
      <section><h2>Steered</h2><div class="out steered" data-testid="out-steered">${run.steered || html`<span class="soft">${busy ? "…" : "answer with the features above"}</span>`}</div></section>
    </div>`;
}

function Done({ done }) {
  return html`<p class="small soft" data-testid="steer-done">
    ‖Δ‖ / ‖h‖ at most ${done.delta_ratio.toFixed(2)}, on average ${done.delta_ratio_mean.toFixed(2)}, over ${done.n_steered} tokens.
    ${done.warning && html` <span class="warn">${done.warning}</span>`}
    ${done.capped && !done.warning && html` <span class="bad">The change Δ was scaled down to the norm of the residual h.</span>`}
    ${done.mean_kl !== null && ` Mean KL ${done.mean_kl.toFixed(3)} nats.`} ${done.seconds.toFixed(1)} s.</p>`;
}

root.replaceChildren();
render(html`<${App} />`, root);

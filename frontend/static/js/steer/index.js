// The steering page: controls on the left, the default and the steered text side by side, streamed.
import { html, render, useEffect, useRef, useState } from "../../vendor/htm/preact/standalone.module.js";
import { $ } from "../dom.js";
import { whenLoaded } from "../live.js";
import { Answers, History } from "./answers.js";
import { Features } from "./features.js";
import { ImageInput } from "./image.js";
import { EMPTY, address, generate, inputOf, keepRun, newRun, readRuns } from "./runs.js";
import { Several, pageAddress } from "./several.js";

const SCOPES = { image: "image patches", prompt: "prompt text", generated: "generated text" };
const IDLE = { phase: "idle", address: "", ...EMPTY };
const root = $("#steer");
const start = JSON.parse(root.dataset.state);
const live = root.dataset.ready === "yes";
const isOpen = matchMedia("(min-width: 900px)").matches || Boolean(start.note); // on a phone the features come first

/** Keep the address up to date: a run is an entry of the history, and so are the settings after it. */
function useAddress(state, run) {
  useEffect(() => {
    if (state === start && start.faulty) return; // the address stays as it is, beside the sentence about it
    const settings = address(state), to = pageAddress(state);
    if (history.state?.run && history.state.run !== settings) history.pushState(null, "", to);
    else history.replaceState(run.address === settings ? { run: settings } : null, "", to);
  }, [state, run.address]);
}

function Input({ state, set }) {
  const tick = (value) => (e) => set({ scope: e.target.checked ? [...state.scope, value] : state.scope.filter((s) => s !== value) });
  return html`<details class="panel" open=${isOpen} data-testid="steer-input"><summary><h2>Input</h2><span class="small soft">${inputOf(state)}${state.prompt && `, “${state.prompt}”`}</span></summary>
    <div class="stack">
      ${start.images && html`<${ImageInput} state=${state} set=${set} live=${live} note=${start.note} />`}
      <label class="field">Prompt<textarea rows="2" value=${state.prompt} onInput=${(e) => set({ prompt: e.target.value })} data-testid="steer-prompt"></textarea></label>
      <fieldset class="row"><legend class="tiny soft">Steer at</legend>${Object.entries(SCOPES).filter(([value]) => start.images || value !== "image").map(([value, name]) => html`<label class="check" key=${value}><input type="checkbox" checked=${state.scope.includes(value)} onChange=${tick(value)} data-testid=${`scope-${value}`} /> ${name}</label>`)}</fieldset>
      <label class="check"><input type="checkbox" checked=${state.attention === "frozen"} onChange=${(e) => set({ attention: e.target.checked ? "frozen" : "free" })} data-testid="steer-frozen" /> <span>Freeze attention <span class="tiny soft">above layer ${start.layer}: each token looks where it looks without steering</span></span></label>
      <div class="thirds-row">
        <label class="field">Maximum tokens<input type="number" min="1" max="256" value=${state.max_tokens} onInput=${(e) => set({ max_tokens: Number(e.target.value) })} /></label>
        <label class="field">Temperature<input type="number" min="0" max="2" step="0.1" value=${state.temperature} onInput=${(e) => set({ temperature: Number(e.target.value) })} /></label>
        <label class="field">Seed<input type="number" min="0" step="1" value=${state.seed} onInput=${(e) => set({ seed: Number(e.target.value) })} /></label>
      </div>
    </div>
  </details>`;
}

/** The button, after the form that it sends: between the features and the answers, in the order of use. */
function Go({ state, busy, stop, n }) {
  const missing = !state.features.length ? "Select a feature first." : !state.scope.length ? "Select where to steer." : "";
  return html`<p class="row"><button class="main" form="steer-form" disabled=${busy || !live || Boolean(missing)} data-testid="steer-go">${busy ? `Generating … ${n}/${state.max_tokens}` : "Steer"}</button>${busy ? html`<button type="button" onClick=${stop} data-testid="steer-stop">Stop</button>` : html`<span class=${`tiny soft${live && missing ? "" : " key-hint"}`}>${(live && missing) || "Ctrl + Enter"}</span>`}</p>`;
}

function App() {
  const [state, setState] = useState(start);
  const [runs, setRuns] = useState(readRuns);
  const [run, setRun] = useState(() => readRuns().find((r) => r.address === address(start)) ?? IDLE);
  const control = useRef(null);
  const form = useRef(null);
  const set = (part) => setState((old) => ({ ...old, ...part }));
  useAddress(state, run);
  useEffect(() => { if (run.phase === "done" || (run.phase === "stopped" && run.steered.length)) setRuns((old) => keepRun(old, run)); }, [run.phase]);

  const stop = () => control.current?.abort();
  const go = async (event) => {
    event.preventDefault();
    stop();
    const controller = (control.current = new AbortController());
    setRun(newRun(state));
    await generate(state, controller.signal, (change) => { if (control.current === controller) setRun(change); });
  };
  useEffect(() => document.addEventListener("keydown", (event) => { // from anywhere; on a link the browser opens a tab
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.target.closest("a") || $("dialog[open]")) return;
    event.preventDefault();
    if (!$("[data-testid=steer-go]").disabled) form.current.requestSubmit();
  }), []);
  const busy = run.phase === "running";
  const n = Math.max(run.default.length, run.steered.length);
  return html`
  <form id="steer-form" class="stack" onSubmit=${go} ref=${form}><${Input} state=${state} set=${set} /></form>
  <div class="stack">
    <${Features} features=${state.features} change=${(features) => set({ features })} />
    <${Go} state=${state} busy=${busy} stop=${stop} n=${n} />
    <${Answers} run=${run} stale=${run.phase !== "idle" && run.address !== address(state)} />
    <${Several} state=${state} live=${live} busy=${busy} set=${set} />
    <${History} runs=${runs} current=${run.address} />
  </div>`;
}

if (root.dataset.liveState === "loading") whenLoaded(() => location.reload());
root.replaceChildren();
render(html`<${App} />`, root);

// Several runs of one prompt at once: at several strengths, each feature alone, or with several seeds; beside each a random
// feature that changes h as much.
import { html, useEffect, useRef, useState } from "../../vendor/htm/preact/standalone.module.js";
import { errorMessage } from "../dom.js";
import { address, runTogether } from "./runs.js";

const SHARES = [0.25, 0.5, 0.75, 1, 1.25]; // of the cap
const PLAIN = [0.5, 1, 2, 4, 8]; // × p99.9, where the cap is unknown
const N_SEEDS = 8;
const AT_ONCE = 8; // candidates of one request
const MODES = { strengths: "Strengths", features: "Each feature alone", seeds: "Seeds" };

/** The address of the page: the settings, and what of several runs is open. */
export const pageAddress = (state) => address(state) + (state.many ? `&many=${state.many}` : "");

/** The cells of a mode: settings that open each as a single run, and what is special in it. */
export function cellsOf(state, mode) {
  if (mode === "features") return state.features.map((f) => ({ state: { ...state, features: [f] }, f }));
  if (mode === "seeds") return state.temperature > 0 ? Array.from({ length: N_SEEDS }, (_, i) => ({ state: { ...state, seed: state.seed + i } })) : [];
  const nMoved = state.features.filter((f) => f.mode !== "ablate").length;
  const at = (f, i) => (f.mode === "ablate" ? f : { ...f, strength: Math.min(100, Math.max(0.25, Math.round((f.cap ? (SHARES[i] * f.cap) / nMoved : PLAIN[i]) * 4) / 4)) });
  const capped = state.features.some((f) => f.cap);
  const steps = SHARES.map((share, i) => ({ state: { ...state, features: state.features.map((f) => at(f, i)) }, share: capped ? share : null }));
  return nMoved ? steps.filter((step, i) => !i || address(step.state) !== address(steps[i - 1].state)) : [];
}

const candidate = ({ state }, control) => ({ features: state.features, seed: state.seed, ...(control ? { control: 0 } : {}) });
const NONE = { feature: [], random: [], byTarget: false };

/** The tabs, the target, and the runs. The address names the open tab, so that a link and a reload run it again. */
export function Several({ state, live, busy, set }) {
  const [results, setResults] = useState({ ...NONE });
  const [plan, setPlan] = useState(null);
  const [error, setError] = useState("");
  const [running, setRunning] = useState(false);
  const [views, setViews] = useState(null);
  const control = useRef(null);
  const begin = async (mode) => {
    control.current?.abort();
    const controller = (control.current = new AbortController());
    const cells = cellsOf(state, mode);
    set({ many: mode });
    setPlan({ mode, cells, address: address(state), target: state.target });
    setResults({ ...NONE, byTarget: Boolean(state.target?.trim()) });
    setError("");
    setRunning(true);
    try {
      setViews(await import("./views.js")); // only now: a page without several runs needs none
      for (const name of ["feature", "random"]) {
        for (let i = 0; i < cells.length && control.current === controller; i += AT_ONCE) {
          const runs = await runTogether(state, cells.slice(i, i + AT_ONCE).map((cell) => candidate(cell, name === "random")), controller.signal);
          if (control.current === controller) setResults((old) => ({ ...old, [name]: [...old[name], ...runs] }));
        }
      }
    } catch (wrong) { if (control.current === controller && wrong.name !== "AbortError") setError(errorMessage(wrong)); }
    if (control.current === controller) setRunning(false);
  };
  useEffect(() => { if (state.many && live && cellsOf(state, state.many).length) begin(state.many); }, []); // of the address
  const View = plan && views?.[plan.mode];
  const missing = !state.features.length ? "Select a feature first." : !state.scope.length ? "Select where to steer." : "";
  const isOff = (mode) => !live || busy || Boolean(missing) || !cellsOf(state, mode).length;
  return html`<section class="panel" aria-labelledby="sw-h" data-testid="sweep" data-running=${running ? "yes" : plan ? "no" : "never"}>
    <header><h2 id="sw-h">Several runs at once</h2><p>A random feature that changes h as much runs beside each. What differs between the two is the feature's own effect.</p></header>
    <label class="field">Target word, whose probability is shown<input value=${state.target ?? ""} maxlength="60" onInput=${(e) => set({ target: e.target.value })} placeholder="red" data-testid="sweep-word" /></label>
    <div class="row many section-tight">${Object.entries(MODES).map(([mode, title]) => html`<button type="button" key=${mode} aria-pressed=${plan?.mode === mode} onClick=${() => begin(mode)} disabled=${isOff(mode)} data-testid=${`many-${mode}`}>${title}</button>`)}
      ${running && html`<button type="button" onClick=${() => { control.current.abort(); setRunning(false); }} data-testid="sweep-stop">Stop</button>`}</div>
    <p class="tiny soft section-tight" role="status" data-testid="many-status">${missing || (running ? `${results.feature.length + results.random.length} of ${2 * plan.cells.length} answers …` : `Strengths up to beyond the cap, each feature alone and ranked, or ${N_SEEDS} seeds${state.temperature > 0 ? "" : " (set a temperature above 0)"}.`)}</p>
    ${error && html`<p class="note error section-tight" role="alert" data-testid="sweep-error">${error} <button type="button" onClick=${() => begin(plan.mode)} disabled=${isOff(plan.mode)} data-testid="sweep-again">Try again</button></p>`}
    ${plan && plan.address !== address(state) && html`<p class="note warn-note section-tight">From other settings.</p>`}
    ${View && html`<${View} cells=${plan.cells} results=${results} target=${plan.target} blank=${running ? "…" : "not run"} />`}
  </section>`;
}

// A sweep: the same run at several strengths, beside random features that change h as much.
import { html, useRef, useState } from "../../vendor/htm/preact/standalone.module.js";
import { added } from "./answers.js";
import { address, generate, newRun } from "./runs.js";

const SHARES = [0.25, 0.5, 0.75, 1, 1.25]; // of the cap
const PLAIN = [0.5, 1, 2, 4, 8]; // × p99.9, where the cap is unknown
const ROWS = [["feature", "Steered"], ["random", "A random feature, h changed as much"]];

/** The settings at each strength, weak ones first, each once. */
export function settings(state) {
  const moved = state.features.filter((f) => f.mode !== "ablate").length;
  const at = (f, i) => (f.mode === "ablate" ? f : { ...f, strength: Math.min(100, Math.max(0.25, Math.round((f.cap ? (SHARES[i] * f.cap) / moved : PLAIN[i]) * 4) / 4)) });
  const all = SHARES.map((share, i) => ({ ...state, features: state.features.map((f) => at(f, i)), share: state.features.some((f) => f.cap) ? share : null }));
  return moved ? all.filter((one, i) => !i || address(one) !== address(all[i - 1])) : [];
}

const strengthOf = (state) => state.features.filter((f) => f.mode !== "ablate").map((f) => `${f.strength} ×`).join(", ");
const percent = (p) => (p < 0.001 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);

function Cell({ cell, top, target }) {
  const { run, state, control } = cell;
  const isNew = added(run.default, run.steered);
  const kl = run.done?.mean_kl ?? 0;
  return html`<li class="card sweep-cell" data-testid=${`sweep-${control ? "random" : "feature"}`}>
    <div class="meta"><a class="label" href=${address(state)} title="Open it with this strength">${strengthOf(state)}</a>${state.share && html`<span class=${`tiny ${state.share > 1 || run.done?.capped ? "bad" : "soft"}`}>${run.done?.capped ? "capped" : `${Math.round(100 * state.share)} % of the cap`}</span>`}</div>
    <svg class="share" viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label=${`Mean KL ${kl.toFixed(3)} nats`}><rect width="100" height="4" /><rect width=${top ? (100 * kl) / top : 0} height="4" /></svg>
    <p class="tiny soft">${run.done ? `KL ${kl.toFixed(2)}` : run.error || "…"}${run.target && html` · <span data-testid="sweep-target">${target} ${percent(run.target.p_default)} → <strong>${percent(run.target.p_steered)}</strong></span>`}</p>
    <p class="small sweep-answer" dir="auto">${run.steered.map((text, i) => (isNew[i] && run.default.length ? html`<mark>${text}</mark>` : text))}</p>
  </li>`;
}

function Row({ title, row, top, target }) {
  const drawn = row.map((cell) => cell.run.done?.control).find((id) => Number.isInteger(id));
  return html`<h3 class="section-tight">${title}${drawn === undefined ? "" : ` (#${drawn})`}</h3>
    <ul class="grid sweep">${row.map((cell, i) => html`<${Cell} key=${i} cell=${cell} top=${top} target=${target} />`)}</ul>`;
}

/** The button, the target, and the runs as small multiples. */
export function Sweep({ state, live, busy, set }) {
  const [cells, setCells] = useState([]);
  const [made, setMade] = useState("");
  const control = useRef(null);
  const running = cells.some((cell) => cell.run.phase === "running");
  const steps = settings(state);
  const begin = async () => {
    control.current?.abort();
    const mine = (control.current = new AbortController());
    const planned = ROWS.flatMap(([name]) => steps.map((one) => ({ state: one, control: name === "random", run: { ...newRun(one), phase: "waiting" } })));
    setCells(planned);
    setMade(address(state));
    for (let i = 0; i < planned.length && !mine.signal.aborted; i++) {
      const change = (to) => setCells((old) => old.map((cell, k) => (k === i && control.current === mine ? { ...cell, run: typeof to === "function" ? to(cell.run) : to } : cell)));
      change(newRun(planned[i].state));
      await generate({ ...planned[i].state, ...(planned[i].control ? { control: 0 } : {}) }, mine.signal, change);
    }
  };
  const top = Math.max(0, ...cells.map((cell) => cell.run.done?.mean_kl ?? 0));
  return html`<section class="panel" aria-labelledby="sw-h" data-testid="sweep">
    <header><h2 id="sw-h">Strength sweep</h2><p>The same prompt at several strengths up to beyond the cap, and beside each a random feature that changes h as much: what only the feature does is its own effect.</p></header>
    <div class="row"><label class="field grow">Target word, whose probability is shown<input value=${state.target ?? ""} maxlength="60" onInput=${(e) => set({ target: e.target.value })} placeholder="red" data-testid="sweep-word" /></label>
      <button type="button" onClick=${begin} disabled=${!live || busy || running || !steps.length} data-testid="sweep-go">${running ? "Running …" : `Sweep ${steps.length} strengths`}</button>
      ${running && html`<button type="button" onClick=${() => control.current.abort()} data-testid="sweep-stop">Stop</button>`}</div>
    ${cells.length > 0 && made !== address(state) && html`<p class="note warn-note section-tight">From other settings.</p>`}
    ${cells.length > 0 && ROWS.map(([name, title]) => html`<${Row} key=${name} title=${title} row=${cells.filter((cell) => cell.control === (name === "random"))} top=${top} target=${state.target} />`)}
  </section>`;
}

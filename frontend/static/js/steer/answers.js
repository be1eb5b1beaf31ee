// The answers of a run, token by token, and the runs before it.
import { html } from "../../vendor/htm/preact/standalone.module.js";
import { whyAddress } from "./runs.js";

const MIN_KL_RANGE = 0.1; // nats; the full height of the chart, if no step has more: so tiny values look tiny

/** Which tokens of `b` are not in `a`: all but a longest common subsequence. */
export function added(a, b) {
  const length = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      length[i][j] = a[i] === b[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
    }
  }
  const isNew = b.map(() => true);
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) { isNew[j] = false; i++; j++; } else if (length[i + 1][j] >= length[i][j + 1]) i++;
    else j++;
  }
  return isNew;
}

const same = (run) => run.phase === "done" && run.default.join("") === run.steered.join("");

function Answer({ name, title, tokens, other, waiting, why }) {
  const isNew = added(other, tokens);
  return html`<section><h2>${title}</h2><div class=${`out ${name}`} data-testid=${`out-${name}`}>${tokens.length ? tokens.map((text, i) => (isNew[i] && other.length ? html`<mark>${text}</mark>` : text)) : html`<span class="soft">${waiting}</span>`}</div>
    ${why && html`<p class="small"><a href=${why} data-testid=${`why-${name}`}>Why this answer</a></p>`}</section>`;
}

/** What the run is about: its settings where they are no longer those of the page, its place in the queue, its length. */
function Status({ run, stale, n }) {
  if (run.phase === "idle") return null;
  if (run.phase === "running" && run.before > 0) return html`<p class="note" role="status" data-testid="steer-waiting">Waits for the model: ${run.before} before you.</p>`;
  return html`<p class=${`small ${stale ? "note warn-note" : "soft"}`} data-testid="steer-status">${stale ? html`From other settings: <a href=${run.address}>${run.what}, ${run.input}</a>. ` : `With ${run.what}, ${run.input}. `}
    ${run.phase === "running" ? `${n} of at most ${run.max_tokens} tokens …` : run.phase === "stopped" ? `Stopped after ${n} tokens.` : same(run) ? "Both answers are the same: try more strength, another sample or another prompt." : n ? "Marked tokens are not in the other answer." : ""}</p>`;
}

function Kl({ steps }) {
  if (!steps.length) return null;
  const largest = Math.max(...steps);
  const top = Math.max(largest, MIN_KL_RANGE);
  return html`<figure><svg class="hist" viewBox=${`0 0 ${Math.max(steps.length, 20) * 4} 40`} preserveAspectRatio="none" role="img" aria-label="KL divergence per step">
    ${steps.map((kl, i) => html`<rect class="b" x=${i * 4} width="3.4" y=${40 - (kl / top) * 38} height=${(kl / top) * 38}><title>${`step ${i + 1}: KL ${kl.toFixed(3)}`}</title></rect>`)}
    </svg><figcaption class="tiny soft">KL divergence of the steered from the unsteered model on the same prefix, per step; maximum ${largest < 0.01 ? "below 0.01" : largest.toFixed(2)} nats</figcaption></figure>`;
}

function Done({ done }) {
  return html`<p class="small soft" data-testid="steer-done">
    ‖Δ‖ / ‖h‖ at most ${done.delta_ratio.toFixed(2)}, on average ${done.delta_ratio_mean.toFixed(2)}, over ${done.n_steered} tokens.
    ${done.warning && html` <span class="warn">${done.warning}</span>`}
    ${done.capped && !done.warning && html` <span class="bad">The change Δ was scaled down to the norm of the residual h.</span>`}
    ${done.mean_kl !== null && ` Mean KL ${done.mean_kl.toFixed(3)} nats.`} ${done.seconds.toFixed(1)} s.</p>`;
}

export function Answers({ run, stale }) {
  const why = (steered) => (run.phase === "done" ? whyAddress(run.address, steered) : null);
  const busy = run.phase === "running";
  const n = Math.max(run.default.length, run.steered.length);
  return html`<div class="stack" aria-busy=${false} data-stale=${stale ? "yes" : "no"} data-testid="answers">
    ${run.error && html`<p class="note error" role="alert" data-testid="steer-error">${run.error}</p>`}
    <${Status} run=${run} stale=${stale} n=${n} />
    <div class=${`cols even${stale ? " stale" : ""}`}>
      <${Answer} name="default" title="Default" tokens=${run.default} other=${run.steered} waiting=${busy ? "…" : "answer of the unchanged model"} why=${why(false)} />
      <${Answer} name="steered" title="Steered" tokens=${run.steered} other=${run.default} waiting=${busy ? "…" : "answer with the features above"} why=${why(true)} />
    </div>
    <${Kl} steps=${run.kl} />
    ${run.done && html`<${Done} done=${run.done} />`}
    <p class="sr" role="status">${run.phase === "done" ? `Done: ${run.steered.join("")}` : ""}</p>
  </div>`;
}

/** Earlier runs of this tab: each link restores its settings and its answers. */
export function History({ runs, current }) {
  const others = runs.filter((one) => one.address !== current);
  if (!others.length) return null;
  return html`<section class="panel" aria-labelledby="sh-h"><header><h2 id="sh-h">Earlier runs</h2><p>Kept until this tab is closed. A link restores settings and answers.</p></header>
    <ul class="list" data-testid="steer-history">${others.map((one) => html`<li key=${one.address}><a href=${one.address}>${one.what}, ${one.input}</a>
      <span class="small soft long"> ${one.done?.mean_kl ? `KL ${one.done.mean_kl.toFixed(2)} · ` : ""}${one.steered.join("").trim().slice(0, 160)}</span></li>`)}</ul></section>`;
}

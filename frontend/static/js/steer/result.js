// What is measured of a run: the KL of each step, the size of the change, and how likely both models find a token.
import { html } from "../../vendor/htm/preact/standalone.module.js";

const MIN_KL_RANGE = 0.1; // nats; the full height of the chart, if no step has more: so tiny values look tiny
const MODELS = { default: "Unchanged model", steered: "Steered model" };
const share = (logprob) => { const p = Math.exp(logprob); return p < 0.001 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`; };
const log = (x) => (x > -0.005 ? "0.00" : `−${Math.abs(x).toFixed(2)}`);
const visible = (text) => text.replaceAll("\n", "⏎") || "(end)";

/** How likely both models find the chosen token after the same beginning, and what they would rather write. */
function Detail({ run, picked }) {
  const token = run.tokens?.[picked.name]?.[picked.i];
  if (!token?.alternatives) return html`<p class="small soft" data-testid="token-detail">Run again for the log-probabilities of its tokens: they are kept for the last run.</p>`;
  const of = { [picked.name]: token.logprob, [picked.name === "default" ? "steered" : "default"]: token.other_logprob };
  return html`<section class="panel" data-testid="token-detail" aria-live="polite"><header><h2>“${visible(token.text.trim() || token.text)}”</h2><p>Token ${picked.i + 1} of the ${picked.name} answer. Both models have read the same tokens before it.</p></header>
    <div class="cols even">${Object.entries(MODELS).map(([name, title]) => html`<div key=${name}><h3>${title}: log p ${log(of[name])} (${share(of[name])})</h3>
      <ol class="likely">${token.alternatives[name].map((t) => html`<li><span class="rival" dir="auto">${visible(t.text)}</span><span class="num soft">${log(t.logprob)}</span>
        <svg class="share" viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label=${share(t.logprob)}><rect width="100" height="4" /><rect width=${100 * Math.exp(t.logprob)} height="4" /></svg><span class="num">${share(t.logprob)}</span></li>`)}</ol></div>`)}</div></section>`;
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
    ‖Δ‖ / ‖h‖ at most ${done.delta_ratio.toFixed(2)}, on average ${done.delta_ratio_mean.toFixed(2)}, over ${done.n_steered} ${done.n_steered === 1 ? "token" : "tokens"}.
    ${done.warning && html` <span class="warn">${done.warning}</span>`}
    ${done.capped && !done.warning && html` <span class="bad">The change Δ was scaled down to the norm of the residual h.</span>`}
    ${done.mean_kl !== null && ` Mean KL ${done.mean_kl.toFixed(3)} nats.`} ${done.seconds.toFixed(1)} s.</p>`;
}

export function Result({ run, picked }) {
  return html`${picked && html`<${Detail} run=${run} picked=${picked} />`}<${Kl} steps=${run.kl} />${run.done && html`<${Done} done=${run.done} />`}`;
}

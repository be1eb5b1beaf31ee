// The answers of a run, token by token, and the runs before it.
import { html, useEffect, useState } from "../../vendor/htm/preact/standalone.module.js";
import { whyAddress } from "./runs.js";

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

/** The tokens of an answer, each a button: the arrow keys go from one to the next. */
function Tokens({ name, tokens, isNew, picked, pick, ended }) {
  const visible = tokens.flatMap((text, i) => (text || (ended && i === tokens.length - 1) ? [i] : []));
  const at = visible.includes(picked) ? picked : visible[0];
  const move = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const next = step && visible[visible.indexOf(at) + step];
    if (next === undefined) return;
    event.preventDefault();
    event.currentTarget.querySelector(`[data-token="${next}"]`).focus();
  };
  return html`<span onKeyDown=${move}>${visible.map((i) => html`<button type="button" key=${i} class=${`token${isNew[i] ? " new" : ""}`} data-token=${i} tabindex=${i === at ? 0 : -1} aria-pressed=${i === picked}
    onFocus=${() => pick({ name, i })} onClick=${() => pick({ name, i })} data-testid=${`token-${name}`}>${tokens[i] || html`<span class="tiny soft"> (end)</span>`}</button>`)}</span>`;
}

function Answer({ name, title, run, other, waiting, why, picked, pick }) {
  const tokens = run[name];
  const isNew = added(other, tokens).map((isAdded) => isAdded && other.length > 0);
  return html`<section><h2>${title}</h2><div class=${`out ${name}`} dir="auto" data-testid=${`out-${name}`}>${tokens.length ? html`<${Tokens} name=${name} tokens=${tokens} isNew=${isNew} picked=${picked?.name === name ? picked.i : null} pick=${pick} ended=${run.phase === "done"} />` : html`<span class="soft">${waiting}</span>`}</div>
    ${why && html`<p class="small"><a href=${why} data-testid=${`why-${name}`}>Why this answer</a></p>`}</section>`;
}

/** What the run is about: its settings where they are no longer those of the page, its place in the queue, its length. */
function Status({ run, stale, n }) {
  if (run.phase === "idle") return null;
  if (run.phase === "running" && run.before > 0) return html`<p class="note" role="status" data-testid="steer-waiting">Waits for the model: ${run.before} before you.</p>`;
  return html`<p class=${`small ${stale ? "note warn-note" : "soft"}`} data-testid="steer-status">${stale ? html`From other settings: <a href=${run.address}>${run.what}, ${run.input}</a>. ` : `With ${run.what}, ${run.input}. `}
    ${run.phase === "running" ? `${n} of at most ${run.max_tokens} tokens …` : run.phase === "stopped" || (run.phase === "error" && n) ? `Stopped after ${n} token${n === 1 ? "" : "s"}.` : same(run) ? "Both answers are the same: try more strength, another sample or another prompt." : n ? "Marked tokens are not in the other answer. Choose a token for its log-probability and alternatives." : ""}</p>`;
}

export function Answers({ run, stale }) {
  const why = (steered) => (run.phase === "done" ? whyAddress(run.address, steered) : null);
  const busy = run.phase === "running";
  const n = Math.max(run.default.length, run.steered.length);
  const [picked, pick] = useState(null);
  const [result, setResult] = useState(null);
  useEffect(() => pick(null), [run.address, busy]);
  useEffect(() => { if (run.phase !== "idle") import("./result.js").then(setResult, () => {}); }, [run.phase]);
  const both = { run, picked, pick };
  return html`<div class="stack" aria-busy=${false} data-stale=${stale ? "yes" : "no"} data-testid="answers">
    ${run.error && html`<p class="note error" role="alert" data-testid="steer-error">${run.error}</p>`}
    <${Status} run=${run} stale=${stale} n=${n} />
    <div class=${`cols even${stale ? " stale" : ""}`}>
      <${Answer} ...${both} name="default" title="Default" other=${run.steered} waiting=${busy ? "…" : "answer of the unchanged model"} why=${why(false)} />
      <${Answer} ...${both} name="steered" title="Steered" other=${run.default} waiting=${busy ? "…" : "answer with the features above"} why=${why(true)} />
    </div>
    ${result && html`<${result.Result} run=${run} picked=${picked} />`}
    <p class="sr" role="status">${run.phase === "done" ? `Done: ${run.steered.join("")}` : ""}</p>
  </div>`;
}

/** Earlier runs of this tab: each link restores its settings and its answers. */
export function History({ runs, current }) {
  const older = runs.filter((r) => r.address !== current);
  if (!older.length) return null;
  return html`<section class="panel" aria-labelledby="sh-h"><header><h2 id="sh-h">Earlier runs</h2><p>Kept until this tab is closed. A link restores settings and answers.</p></header>
    <ul class="list" data-testid="steer-history">${older.map((r) => html`<li key=${r.address}><a href=${r.address}>${r.what}, ${r.input}</a>
      <span class="small soft long"> ${r.done?.mean_kl ? `KL ${r.done.mean_kl.toFixed(2)} · ` : ""}${r.steered.join("").trim().slice(0, 160)}</span></li>`)}</ul></section>`;
}

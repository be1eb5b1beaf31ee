// How several runs are drawn, by their mode: small multiples of strengths, ranked features, rows of seeds.
import { html } from "../../vendor/htm/preact/standalone.module.js";
import { nameOf } from "../dom.js";
import { added } from "./answers.js";
import { settingOf } from "./features.js";
import { address } from "./runs.js";

const percent = (p) => (p < 0.001 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);
const signed = (x) => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(2)}`;
const gain = (run) => Math.log(Math.max(run.target.p_steered, 1e-30)) - Math.log(Math.max(run.target.p_default, 1e-30));
const holds = (text, word) => text.toLowerCase().includes(word.trim().toLowerCase());
const strengthsOf = (state) => state.features.filter((f) => f.mode !== "ablate").map((f) => `${f.strength} ×`).join(", ");

function Text({ run }) {
  const isNew = added(run.default, run.steered);
  return html`<span class="sweep-answer" dir="auto">${run.steered.map((text, i) => (isNew[i] && run.default.length ? html`<mark>${text}</mark>` : text))}</span>`;
}

function Bar({ value, top, label, thin }) {
  return html`<svg class=${`share${thin ? " thin" : ""}`} viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label=${label}><rect width="100" height="4" /><rect width=${top > 0 ? Math.max(0, (100 * value) / top) : 0} height="4" /></svg>`;
}

// ---- strengths: small multiples

function Cell({ cell, run, top, target, name, blank }) {
  const kl = run?.done.mean_kl ?? 0;
  return html`<li class="card sweep-cell" data-testid=${`sweep-${name}`}>
    <div class="meta"><a class="label" href=${address(cell.state)} title="Open it with this strength">${strengthsOf(cell.state)}</a>${cell.share && html`<span class=${`tiny ${cell.share > 1 || run?.done.capped ? "bad" : "soft"}`}>${run?.done.capped ? "capped" : `${Math.round(100 * cell.share)} % of the cap`}</span>`}</div>
    <${Bar} value=${kl} top=${top} label=${run ? `Mean KL ${kl.toFixed(3)} nats` : blank} />
    <p class="tiny soft">${run ? `KL ${kl.toFixed(2)}` : blank}${run?.target && html` · <span data-testid="sweep-target">${target} <span class="nowrap">${percent(run.target.p_default)}</span> → <strong class="nowrap">${percent(run.target.p_steered)}</strong></span>`}</p>
    <p class="small">${run && html`<${Text} run=${run} />`}</p>
  </li>`;
}

export function strengths({ cells, results, target, blank }) {
  const top = Math.max(0, ...[...results.feature, ...results.random].map((run) => run.done.mean_kl ?? 0));
  const drawn = results.random[0]?.done.control;
  const rows = [["feature", "Steered"], ["random", `A random feature, h changed as much${Number.isInteger(drawn) ? ` (#${drawn})` : ""}`]];
  return rows.map(([name, title]) => html`<h3 class="section-tight">${title}</h3>
    <ul class="grid sweep">${cells.map((cell, i) => html`<${Cell} key=${i} cell=${cell} run=${results[name][i]} top=${top} target=${target} name=${name} blank=${blank} />`)}</ul>`);
}

// ---- features: ranked

export function features({ cells, results, target, blank }) {
  const measure = (run) => (run === undefined ? null : run.target ? gain(run) : run.done.mean_kl ?? 0);
  const rows = cells.map((cell, i) => ({ ...cell, run: results.feature[i], value: measure(results.feature[i]), random: measure(results.random[i]) }));
  rows.sort((a, b) => (b.value ?? -Infinity) - (a.value ?? -Infinity));
  const top = Math.max(0, ...rows.flatMap((row) => [row.value ?? 0, row.random ?? 0]));
  const say = (value) => (value === null ? blank : results.byTarget ? signed(value) : value.toFixed(2));
  return html`<p class="small soft section-tight">Ranked by ${results.byTarget ? html`how much log p of “${target}” as the first token rises, in nats` : "the mean KL of the answer, in nats; with a target word, by how much its log p rises"}. The thin bar is a random feature that changes h as much (‖Δ‖).</p>
    <ol class="ranking" data-testid="ranking">${rows.map((row, i) => html`<li key=${row.f.id} class="card" data-testid="ranked" data-feature=${row.f.id}>
      <div class="meta"><a class="label" href=${address(row.state)} title="Open it alone"><span class="num soft">${i + 1}.</span> <bdi>${nameOf(row.f).text}</bdi> <span class="feature-id">#${row.f.id}</span></a><span class="tiny soft">${settingOf(row.f)}</span></div>
      <${Bar} value=${row.value ?? 0} top=${top} label=${`This feature: ${say(row.value)}`} /><${Bar} value=${row.random ?? 0} top=${top} label=${`Random feature: ${say(row.random)}`} thin />
      <p class="tiny soft"><strong data-testid="ranked-value">${say(row.value)}</strong> · random ${say(row.random)}${row.run?.target && ` · ${target} ${percent(row.run.target.p_default)} → ${percent(row.run.target.p_steered)}`}${row.run?.done.capped ? " · capped" : ""}</p>
      <p class="small">${row.run && html`<${Text} run=${row.run} />`}</p></li>`)}</ol>`;
}

// ---- seeds

export function seeds({ cells, results, target, blank }) {
  const count = (runs, side) => `${runs.filter((run) => holds(run[side].join(""), target)).length} of ${runs.length}`;
  return html`${target?.trim() && results.feature.length > 0 && html`<p class="section-tight" data-testid="seed-shares">“${target.trim()}” stands in <strong>${count(results.feature, "steered")}</strong> steered answers, in ${count(results.feature, "default")} of the unchanged model${results.random.length > 0 ? `, and in ${count(results.random, "steered")} with a random feature that changes h as much` : ""}.</p>`}
    <ul class="ranking section-tight">${cells.map((cell, i) => html`<li key=${i} class="card" data-testid="seed"><div class="meta"><a class="label" href=${address(cell.state)}>Seed ${cell.state.seed}</a><span class="tiny soft">${results.feature[i] ? `KL ${(results.feature[i].done.mean_kl ?? 0).toFixed(2)}` : blank}</span></div>
      ${results.feature[i] && html`<p class="small soft" dir="auto">${results.feature[i].default.join("")}</p><p class="small"><${Text} run=${results.feature[i]} /></p>`}</li>`)}</ul>`;
}

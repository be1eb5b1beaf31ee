"""Renders docs/results.md and its plots from the committed result files.

    python -m precompute.experiments.report          # rewrite
    python -m precompute.experiments.report --check  # exit 1 where the page or a plot is stale
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from precompute.experiments import plots, ratios
from precompute.rendering import RESULTS, Row, interval, read, read_lines, splice, table

PAGE = Path("docs/results.md")
IMAGES = Path("docs/img")
QUANTITIES = {
    "omega": "ω (`paired`)",
    "omega_baseline": "ω⁰, random tokens of the same samples",
    "omega_centred": "ω centred",
    "omega_without_self": "ω centred, without the feature's own part",
    "lift": "lift",
    "lift_without_self": "lift without the feature's own part",
}
SAES = {"sae-base": "SAE of the text LM", "sae-mllm": "SAE of the MLLM's text", "sae-v": "SAE-V"}
SETTINGS = {"base-text": "text LM, text", "mllm-text": "MLLM, text", "mllm-pairs": "MLLM, text & vision"}
AUTHORS_FIGURE_3 = {
    "zero ablation": (10.37, 10.37, 10.37),
    "SAE of the text LM": (6.19, 6.78, 6.85),
    "SAE of the MLLM's text": (6.79, 6.76, 6.90),
    "SAE-V": (2.71, 2.24, 2.64),
    "original": (1.62, 1.67, 2.50),
}
"""Cross-entropy, arXiv 2502.17514, Figure 3: Mistral-7B and LLaVA-NeXT-7B."""
AUTHORS_PATCHES = {"25 %": 0.70}
"""Accuracy left at a quarter of the patches, ten ImageNet classes; the same source."""
AUTHORS_FILTERING = (
    ("`cooccurring-l0`, 50 %", "108.17", "115 %"),
    ("`cosine`, 20 %", "108", "–"),
    ("random subsets", "95.6 to 107.8", "–"),
)
"""LLaVA-NeXT-7B, Align-Anything, DPO, LLaVA-Bench; the same source."""

Found = Mapping[str, Any]


# ---- ω and its controls


def omega_part(s: Found) -> str:
    true, exchanged = s["shuffled_images"]["true"], s["shuffled_images"]["images_exchanged"]
    rows = [
        (name, *(quantiles(of["quantiles"][key]) for of in (true, exchanged))) for key, name in QUANTITIES.items()
    ]
    counts: list[Row] = [
        ("features tested", true["tested"], exchanged["tested"]),
        ("verdict `cross-modal`", true["cross_modal"], exchanged["cross_modal"]),
        ("lift above 0, lower end of its interval", true["lift_above_zero"], exchanged["lift_above_zero"]),
        *(
            (f"verdict `{name}`", true["verdicts"].get(name, 0), exchanged["verdicts"].get(name, 0))
            for name in sorted({*true["verdicts"], *exchanged["verdicts"]} - {"cross-modal"})
        ),
        (
            "mean `same_sample_rate`",
            f"{true['mean_same_sample_rate']:.3f}",
            f"{exchanged['mean_same_sample_rate']:.3f}",
        ),
    ]
    head = ("median (5 % to 95 % of the features)", "images as they are", "images exchanged")
    return "\n\n".join((table(head, rows), table(("", *head[1:]), counts), image("omega", "Histograms of ω")))


def quantiles(of: Found) -> str:
    return f"{of['median']:.3f} ({of['p5']:.3f} to {of['p95']:.3f})"


def omega_plot(s: Found) -> bytes:
    true = s["shuffled_images"]["true"]
    counts = {QUANTITIES[name].replace("`", ""): of for name, of in true["counts"].items()}
    return plots.histograms(true["edges"], counts, label="cosine, features that could be tested")


# ---- the thirty words


def words_part(e: Found) -> str:
    failing = [(word, f"#{r['feature']}", why(r)) for word, r in e["words"].items() if not r["passes"]]
    said = f"**{e['words_passed']} of {len(e['words'])}** words have a feature (goal: ≥ 26)."
    return f"{said} Those that fail:\n\n{table(('word', 'best feature', 'why'), failing)}"


def why(r: Found) -> str:
    """Which of the three conditions a word's best feature misses."""
    reasons = []
    if r["token_rate"] < 0.5:
        reasons.append(f"active on {r['token_rate']:.2f} of the word's tokens (≥ .50 wanted)")
    if r["precision"] < 0.7:
        reasons.append(f"{r['precision']:.2f} of its 16 strongest patches show the thing (≥ .70 wanted)")
    if r["precision"] <= r["chance_p99"]:
        reasons.append(f"no more than the {r['chance_p99']:.2f} of exchanged scenes")
    return "; ".join(reasons)


# ---- wrong pairs


def pairs_part(w: Found) -> str:
    kinds = w["kinds"]
    names = list(next(iter(kinds.values()))["auroc"])
    best = w["headline"]["name"]
    rows = [
        (f"**`{name}`**" if name == best else f"`{name}`", *(interval(of["auroc"][name], 2) for of in kinds.values()))
        for name in names
    ]
    examples = [
        (kind, of["n_scenes"], of["example"]["right"], of["example"]["wrong"])
        for kind, of in kinds.items()
        if kind != "one-word"
    ]
    return "\n\n".join(
        (
            table(("score", *kinds), rows),
            table(("kind", "scenes", "right, for example", "wrong"), examples),
            image("wrong-pairs", "AUROC of the better scores for each kind of wrong caption"),
        )
    )


def pairs_plot(w: Found) -> bytes:
    shown = dict.fromkeys([w["headline"]["name"], "unsupported", "supported-share", "pooled-cosine", "caption-nll"])
    groups = {
        kind: {name: of["auroc"][name] for name in shown if of["auroc"].get(name)} for kind, of in w["kinds"].items()
    }
    return plots.points(groups, label="AUROC, right against wrong caption", line=(0.5, "chance"))


# ---- patch filtering


def patches_part(p: Found) -> str:
    by_score: dict[str, dict[float, Found]] = {}
    for item in p["kept"]:
        by_score.setdefault(item["score"], {})[item["keep"]] = item
    keeps = sorted({item["keep"] for item in p["kept"]}, reverse=True)
    rows = [
        (f"`{score}`", *(f"{of[k]['accuracy']:.3f}, {interval(of[k]['of_full'], 2)}" for k in keeps),
         *(interval(of[k].get("over_random"), 2) for k in keeps[-1:]))
        for score, of in by_score.items()
    ]  # fmt: skip
    head = ("patches by", *(f"{k:g} % kept: accuracy, of full" for k in keeps), f"over `random` at {keeps[-1]:g} %")
    full, none = p["full"], p["none"]
    return "\n\n".join(
        (
            f"{full['n']} questions; all patches {full['accuracy']:.3f}, none {none['accuracy']:.3f}.",
            table(head, rows),
            kinds_table(p, by_score, keeps[-1]),
            image("patches", "Accuracy over that with all patches"),
        )
    )


def kinds_table(p: Found, by_score: Mapping[str, Mapping[float, Found]], keep: float) -> str:
    kinds = list(p["full"].get("kinds", {}))
    if not kinds:
        return ""
    sources = {"all patches": p["full"], "none": p["none"]}
    sources |= {f"`{score}`, {keep:g} %": of[keep] for score, of in by_score.items()}
    rows = [(name, *(f"{of['kinds'][k]['accuracy']:.2f}" for k in kinds)) for name, of in sources.items()]
    return table(("accuracy by kind of question", *kinds), rows)


def patches_plot(p: Found) -> bytes:
    groups: dict[str, dict[str, Any]] = {}
    for item in p["kept"]:
        groups.setdefault(f"{item['keep']:g} %", {})[item["score"]] = item["of_full"]
    return plots.points(
        groups, label="accuracy over that with all patches", line=(1.0, "all patches"), marks=AUTHORS_PATCHES
    )


# ---- filtering for alignment


def filtering_part(runs: Sequence[Found]) -> str:
    arms = ratios.arms(runs)
    full = arms["full", 100.0]
    rows = [
        (f"`{score}`" if score != "full" else "all pairs", f"{keep:g} %", f"{arm.swapped_share:.2f}",
         f"{arm.accuracy:.3f}", interval(arm.ratio, 2), interval(arm.over_random, 2))
        for (score, keep), arm in arms.items()
    ]  # fmt: skip
    kinds = list(full.by_kind)
    by_kind = [
        (f"`{score}`, {keep:g} %", *(f"{arm.by_kind[k]:.2f}" for k in kinds)) for (score, keep), arm in arms.items()
    ]
    n_seeds = len({run["seed"] for run in runs})
    head = ("kept by", "kept", "wrong captions among them", "accuracy", "ratio to all pairs", "over `random`")
    return "\n\n".join(
        (
            f"{n_seeds} seeds, {len(runs[0]['right'])} held-out scenes with {sum(runs[0]['asked'])} words. All "
            f"pairs reach {full.accuracy:.3f}, so no ratio can exceed {1 / full.accuracy:.2f}.",
            table(head, rows),
            table(("accuracy by kind of word", *kinds), by_kind),
            image("filtering", "Accuracy over that of the model tuned on all pairs"),
            "The authors' own (LLaVA-NeXT-7B, Align-Anything, DPO, LLaVA-Bench; single runs):",
            table(("kept by", "LLaVA-Bench", "of full data"), AUTHORS_FILTERING),
        )
    )


def filtering_plot(runs: Sequence[Found]) -> bytes:
    groups: dict[str, dict[str, Any]] = {}
    for (score, keep), arm in ratios.arms(runs).items():
        if score != "full":
            groups.setdefault(score, {})[f"{keep:g} % kept"] = arm.ratio
    return plots.points(groups, label="accuracy over that of all pairs", line=(1.0, "all pairs"))


# ---- Figure 3


def figure3_part(lines: Sequence[Found]) -> str:
    measured = {(line["sae"], line["setting"], line["seed"]): line for line in lines if line["line"] == "evaluation"}
    seeds = sorted({seed for *_, seed in measured})

    def losses(sae: str, setting: str, what: str) -> str:
        return spread([measured[sae, setting, seed]["cross_entropy"][what]["value"] for seed in seeds])

    rows: list[Row] = [("zero ablation", *(losses("sae-v", setting, "zero") for setting in SETTINGS))]
    rows += [(name, *(losses(sae, setting, "patched") for setting in SETTINGS)) for sae, name in SAES.items()]
    rows.append(("original", *(losses("sae-v", setting, "original") for setting in SETTINGS)))
    recovered = [
        (name, *(
            spread([measured[sae, setting, seed]["loss_recovered"]["all"]["value"] for seed in seeds])
            for setting in SETTINGS
        ))
        for sae, name in SAES.items()
    ]  # fmt: skip
    change = next(line for line in lines if line["line"] == "language-model")
    head = ("cross-entropy, nats", *SETTINGS.values())
    return "\n\n".join(
        (
            f"Mean over {len(seeds)} seeds, least and most of them in brackets.",
            table(head, rows),
            table(("loss recovered", *SETTINGS.values()), recovered),
            language_part(change),
            image("figure3", "Cross-entropy with each SAE's reconstruction in place of the residual stream"),
            "The authors' own (single runs; Mistral-7B, LLaVA-NeXT-7B):",
            table(head, ((name, *map(str, of)) for name, of in AUTHORS_FIGURE_3.items())),
        )
    )


def spread(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def language_part(change: Found) -> str:
    return ""


def figure3_plot(lines: Sequence[Found]) -> bytes:
    groups: dict[str, dict[str, Any]] = {}
    for setting, where in SETTINGS.items():
        for sae, name in SAES.items():
            found = [
                line["cross_entropy"]["patched"]
                for line in lines
                if line["line"] == "evaluation" and (line["sae"], line["setting"]) == (sae, setting)
            ]
            groups.setdefault(where, {})[name] = {
                "value": sum(one["value"] for one in found) / len(found),
                "low": min(one["low"] for one in found),
                "high": max(one["high"] for one in found),
            }
    return plots.points(groups, label="cross-entropy in nats; bars hold the intervals of all seeds")


# ---- the page


def image(name: str, alt: str) -> str:
    return f"![{alt}](img/results-{name}.svg)"


def render(results: Path = RESULTS) -> dict[str, str]:
    """Bodies by the name of their marks."""
    return {
        "omega": omega_part(read("demo-store", results)),
        "words": words_part(read("demo-evaluation", results)),
        "wrong-pairs": pairs_part(read("wrong-pairs", results)),
        "patches": patches_part(read("patches", results)),
        "filtering": filtering_part(read_lines("filtering", results)[1:]),
        "figure3": figure3_part(read_lines("figure3", results)),
    }


def plot(results: Path = RESULTS) -> dict[str, bytes]:
    """SVG by file name."""
    found = {
        "omega": omega_plot(read("demo-store", results)),
        "wrong-pairs": pairs_plot(read("wrong-pairs", results)),
        "patches": patches_plot(read("patches", results)),
        "filtering": filtering_plot(read_lines("filtering", results)[1:]),
        "figure3": figure3_plot(read_lines("figure3", results)),
    }
    return {f"results-{name}.svg": svg for name, svg in found.items()}


def main() -> None:
    before = PAGE.read_text(encoding="utf-8")
    after, drawn = splice(before, render(), PAGE), plot()
    if "--check" in sys.argv[1:]:
        stale = [PAGE] * (before != after)
        stale += [p for name, svg in drawn.items() if not (p := IMAGES / name).exists() or p.read_bytes() != svg]
        sys.exit(f"{stale[0]} is stale: run python -m precompute.experiments.report" if stale else 0)
    PAGE.write_text(after, encoding="utf-8")
    for name, svg in drawn.items():
        (IMAGES / name).write_bytes(svg)


if __name__ == "__main__":
    main()

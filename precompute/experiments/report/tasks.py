"""Parts of docs/results.md: patch filtering, data filtering, Figure 3; beside each the authors' own figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from precompute.demo.evaluation.markdown import Row, image, interval, table
from precompute.experiments.filtering import ratios
from precompute.experiments.report import plots

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
REMOVED = {"drop": "dropped", "mean": "mean colour", "black": "black"}
AUTHORS_PATCHES = 0.70
"""Accuracy left at a quarter of the patches, ten ImageNet classes; the same source."""
AUTHORS_FILTERING = (
    ("`cooccurring-l0`, 50 %", "108.17", "115 %"),
    ("`cosine`, 20 %", "108", "–"),
    ("random subsets", "95.6 to 107.8", "–"),
)
"""LLaVA-NeXT-7B, Align-Anything, DPO, LLaVA-Bench; the same source."""


Found = Mapping[str, Any]


# ---- patch filtering


def patches_part(p: Found) -> str:
    by_score: dict[tuple[str, str], dict[float, Found]] = {}
    for item in p["kept"]:
        by_score.setdefault((item["score"], item["removed"]), {})[item["keep"]] = item
    keeps = sorted({item["keep"] for item in p["kept"]}, reverse=True)
    rows: list[Row] = [
        (
            f"`{score}`",
            REMOVED[removal],
            *(f"{by_keep[k]['accuracy']:.3f}, {interval(by_keep[k]['of_full'], 2)}" for k in keeps),
            *(interval(by_keep[k].get("over_random"), 2) for k in keeps[-1:]),
        )
        for (score, removal), by_keep in by_score.items()
    ]
    authors = (f"{AUTHORS_PATCHES:.2f}" if k == 25 else "–" for k in keeps)
    rows.append(("the authors' (ten ImageNet classes)", REMOVED["black"], *authors, "–"))
    head = ("patches by", "others", *(f"{k:g} % kept: accuracy, of full" for k in keeps))
    with_all, ends = p["full"], p["none_by_removed"].items()
    with_none = "; ".join(f"{REMOVED[way]} {figures['accuracy']:.3f}" for way, figures in ends)
    return "\n\n".join(
        (
            f"{with_all['n']} questions; all patches {with_all['accuracy']:.3f}. None: {with_none}.",
            table((*head, f"over `random` at {keeps[-1]:g} %"), rows),
            knocked_out_table(p),
            kinds_table(p, by_score, keeps[-1]),
            image("patches", "Accuracy over that with all patches"),
        )
    )


def knocked_out_table(p: Found) -> str:
    """What the best patches are needed for: they alone are left out, and the others stay."""
    rows = [
        (f"`{item['score']}`", f"{item['knock_out']:g} %, {REMOVED[item['removed']]}", f"{item['accuracy']:.3f}",
         interval(item["of_full"], 2), interval(item.get("over_random"), 2))
        for item in p["knocked_out"]
    ]  # fmt: skip
    return table(("best patches by", "left out", "accuracy", "of full", "over as many at random"), rows)


def kinds_table(p: Found, by_score: Mapping[tuple[str, str], Mapping[float, Found]], keep: float) -> str:
    kinds = list(p["full"].get("kinds", {}))
    if not kinds:
        return ""
    sources = {"all patches": p["full"]}
    sources |= {f"none, {REMOVED[way]}": figures for way, figures in p["none_by_removed"].items()}
    sources |= {f"`{score}`, {keep:g} %, {REMOVED[way]}": by_keep[keep] for (score, way), by_keep in by_score.items()}
    rows = [(name, *(f"{figures['kinds'][k]['accuracy']:.2f}" for k in kinds)) for name, figures in sources.items()]
    return table(("accuracy by kind of question", *kinds), rows)


def patches_plot(p: Found) -> bytes:
    groups: dict[str, dict[str, Any]] = {}
    for item in p["kept"]:
        groups.setdefault(f"{item['keep']:g} %, {REMOVED[item['removed']]}", {})[item["score"]] = item["of_full"]
    marks = {f"25 %, {REMOVED['black']}": AUTHORS_PATCHES}
    label = "accuracy over that with all patches"
    return plots.interval_plot(groups, label=label, line=(1.0, "all patches"), marks=marks)


# ---- hallucination

HALLUCINATION = {
    "accuracy": "right", "missed": "present, says no", "hallucinated_random": "absent, says yes: random",
    "hallucinated_popular": "popular", "hallucinated_adversarial": "adversarial", "auroc": "AUROC",
    "chair": "objects in captions that are not there", "recall": "objects that captions name",
}  # fmt: skip


def hallucination_part(h: Found) -> str:
    rows = [(way, *(interval(figures[key], 2) for key in HALLUCINATION)) for way, figures in h["ways"].items()]
    features = [(f"#{f['id']}", f["label"] or "–", f"{f['separation']:.2f}") for f in h["features"]]
    n = sum(h["questions"].values())
    sentence = (
        f"{n} questions reported. The features were chosen on {h['hallucinated_to_choose_on']} hallucinated answers to "
        f"other images; strength {h['strength']:g} × p99.9."
    )
    head = ("feature", "name", "P(active, right) − P(active, hallucinated)")
    parts = [sentence, table(("", *HALLUCINATION.values()), rows), *against_random(h), table(head, features)]
    return "\n\n".join(parts)


def against_random(h: Found) -> list[str]:
    """How steering towards right differs from random features; nothing of a result that was measured before."""
    if "against_random" not in h:
        return []
    accuracy, hallucinations = (interval(h["against_random"][key], 2) for key in ("accuracy", "hallucinated"))
    rho = (
        ""
        if h["halves_agree"] is None
        else (
            " The separation of all features on one half of the images correlates with that on the other: "
            f"ρ = {h['halves_agree']:.2f}."
        )
    )
    return [
        f"Steered towards right, less the mean of random features, question by question: right answers {accuracy}, "
        f"hallucinated ones {hallucinations}.{rho}"
    ]


# ---- filtering for alignment


def filtering_part(runs: Sequence[Found]) -> str:
    arms = ratios.arms(runs)
    full_arm = arms["full", 100.0]
    rows = [
        (f"`{score}`" if score != "full" else "all pairs", f"{keep:g} %", f"{arm.swapped_share:.2f}",
         f"{arm.accuracy:.3f}", interval(arm.ratio, 2), interval(arm.over_random, 2))
        for (score, keep), arm in arms.items()
    ]  # fmt: skip
    kinds = list(full_arm.by_kind)
    by_kind = [
        (f"`{score}`, {keep:g} %", *(f"{arm.by_kind[k]:.2f}" for k in kinds)) for (score, keep), arm in arms.items()
    ]
    n_seeds = len({run["seed"] for run in runs})
    head = ("kept by", "kept", "wrong captions among them", "accuracy", "ratio to all pairs", "over `random`")
    return "\n\n".join(
        (
            f"Seeds: {n_seeds}. Held out: {len(runs[0]['right'])} scenes with {sum(runs[0]['asked'])} words asked "
            f"for. All pairs reach {full_arm.accuracy:.3f}, so no ratio can exceed {1 / full_arm.accuracy:.2f}.",
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
    return plots.interval_plot(groups, label="accuracy over that of all pairs", line=(1.0, "all pairs"))


# ---- Figure 3


def figure3_part(lines: Sequence[Found]) -> str:
    line_of = {(line["sae"], line["setting"], line["seed"]): line for line in lines if line["line"] == "evaluation"}
    seeds = sorted({seed for *_, seed in line_of})

    def row(title: str, sae: str, group: str, figure: str) -> Row:
        values_of = ([line_of[sae, setting, seed][group][figure]["value"] for seed in seeds] for setting in SETTINGS)
        return title, *map(spread, values_of)

    rows = [row("zero ablation", "sae-v", "cross_entropy", "zero")]
    rows += [row(name, sae, "cross_entropy", "patched") for sae, name in SAES.items()]
    rows.append(row("original", "sae-v", "cross_entropy", "original"))
    recovery_rows = [row(name, sae, "loss_recovered", "all") for sae, name in SAES.items()]
    change = next(line for line in lines if line["line"] == "language-model")
    head = ("cross-entropy, nats", *SETTINGS.values())
    return "\n\n".join(
        (
            f"Mean over {len(seeds)} seeds, least and most of them in brackets.",
            table(head, rows),
            table(("loss recovered", *SETTINGS.values()), recovery_rows),
            language_part(change),
            image("figure3", "Cross-entropy with each SAE's reconstruction in place of the residual stream"),
            "The authors' own (single runs; Mistral-7B, LLaVA-NeXT-7B):",
            table(head, ((name, *(f"{v:.2f}" for v in values)) for name, values in AUTHORS_FIGURE_3.items())),
        )
    )


def spread(values: Sequence[float]) -> str:
    """Mean, least and most of the seeds; one figure where they do not differ."""
    if min(values) == max(values):
        return f"{values[0]:.3f}"
    return f"{sum(values) / len(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def language_part(change: Found) -> str:
    """How far the multimodal model's language model has moved from the one it was made of."""
    rows = [
        (name, figures["n_texts"], *(interval(figures[column], 3) for column in ("base", "mllm", "change")))
        for key, name in (("captions", "captions alone"), ("plain", "plain text"), ("all", "both"))
        if (figures := change.get(key))
    ]
    why = "The multimodal model's language model is not the text LM any more; cross-entropy of both on the same text:"
    return f"{why}\n\n{table(('text', 'texts', 'text LM', 'MLLM', 'change'), rows)}"


def figure3_plot(lines: Sequence[Found]) -> bytes:
    groups: dict[str, dict[str, Any]] = {}
    for setting, where in SETTINGS.items():
        for sae, name in SAES.items():
            figures = [
                line["cross_entropy"]["patched"]
                for line in lines
                if line["line"] == "evaluation" and (line["sae"], line["setting"]) == (sae, setting)
            ]
            groups.setdefault(where, {})[name] = {
                "value": sum(figure["value"] for figure in figures) / len(figures),
                "low": min(figure["low"] for figure in figures),
                "high": max(figure["high"] for figure in figures),
            }
    return plots.interval_plot(groups, label="cross-entropy in nats; bars hold the intervals of all seeds")

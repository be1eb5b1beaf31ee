"""Parts of docs/results.md: ω and its controls, the thirty words, wrong pairs."""

from collections.abc import Mapping
from typing import Any

from precompute.demo.evaluation.markdown import Row, image, interval, table
from precompute.experiments.report import plots
from precompute.experiments.support.compare import SUPPORT

QUANTITIES = {
    "omega": "ω (`paired`)",
    "omega_baseline": "ω⁰, random tokens of the same samples",
    "omega_centred": "ω centred",
    "omega_without_self": "ω centred, without the feature's own part",
    "lift": "lift",
    "lift_without_self": "lift without the feature's own part",
}

AUTHORS_OMEGA = "The authors' ω over the features of one SAE-V: mean .178, from .05 to .54 (arXiv 2502.17514)."

Found = Mapping[str, Any]


# ---- ω and its controls


def omega_part(s: Found) -> str:
    own_images, other_images = s["shuffled_images"]["true"], s["shuffled_images"]["images_exchanged"]
    stores = (own_images, other_images)
    rows = [(name, *(quantiles(figures["quantiles"][key]) for figures in stores)) for key, name in QUANTITIES.items()]
    counts: list[Row] = [
        ("features tested for pair evidence", own_images["pair_tested"], other_images["pair_tested"]),
        ("verdict `cross-modal`", own_images["cross_modal"], other_images["cross_modal"]),
        ("lift above 0, lower end of its interval", own_images["lift_above_zero"], other_images["lift_above_zero"]),
        *(
            (f"verdict `{name}`", own_images["verdicts"].get(name, 0), other_images["verdicts"].get(name, 0))
            for name in sorted({*own_images["verdicts"], *other_images["verdicts"]} - {"cross-modal"})
        ),
        (
            "mean `same_sample_rate`",
            f"{own_images['mean_same_sample_rate']:.3f}",
            f"{other_images['mean_same_sample_rate']:.3f}",
        ),
    ]
    head = ("median (5 % to 95 % of the features)", "images as they are", "images exchanged")
    plot = image("omega", "Histograms of ω")
    return "\n\n".join((table(head, rows), table(("", *head[1:]), counts), AUTHORS_OMEGA, plot))


OTHER_CONTROLS = {
    "exchanged": "images exchanged before the pass",
    "untrained": "an SAE-V trained on a model with random weights",
    "frozen": "an SAE-V whose decoder stays as it was drawn",
}


def controls_part(c: Found) -> str:
    """Pass rates of the verdict where few ought to pass; parts that were not run are named."""
    rows: list[Row] = []
    controls = c["store"]["controls"] if "store" in c else []
    if "store" in c:
        verdict_counts = c["store"]["cross_modal"]
        rows.append(("the demo's own features", verdict_counts["tested"], percent(verdict_counts), ""))
    rows += [(control["title"], control["tested"], percent(control), rate(control["own"])) for control in controls]
    rows += [
        (title, c[name]["tested"], percent(c[name]), "") if name in c else (title, "–", "not run", "")
        for name, title in OTHER_CONTROLS.items()
    ]
    head = ("features or directions", "tested", "`cross-modal`", "the demo's own under the same conditions")
    notes = "\n".join(f"- *{control['title']}*: {control['note']}" for control in controls)
    return "\n\n".join((table(head, rows), notes)).strip()


def rate(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def percent(estimate: Found) -> str:
    """A share with its interval, or the range of the draws."""
    if estimate["share"] is None:
        return "–"
    return f"{rate(estimate['share'])} ({rate(estimate['low'])} to {rate(estimate['high'])})"


def quantiles(spread: Found) -> str:
    return f"{spread['median']:.3f} ({spread['p5']:.3f} to {spread['p95']:.3f})"


def omega_plot(s: Found) -> bytes:
    own_images = s["shuffled_images"]["true"]
    counts = {QUANTITIES[name].replace("`", ""): bins for name, bins in own_images["counts"].items()}
    return plots.histogram_plot(own_images["edges"], counts, label="cosine, features that could be tested")


# ---- the thirty words


def words_part(e: Found) -> str:
    failures = [(word, f"#{r['feature']}", why(r)) for word, r in e["words"].items() if not r["passes"]]
    sentence = f"**{e['words_passed']} of {len(e['words'])}** words have a feature (goal: ≥ 26)."
    return f"{sentence} Those that fail:\n\n{table(('word', 'best feature', 'why'), failures)}"


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
    auroc_of = {kind: figures["auroc"] for kind, figures in kinds.items()}
    names = list(next(iter(auroc_of.values())))
    top = w["headline"]["name"]
    rows = [
        (f"**`{name}`**" if name == top else f"`{name}`", *(interval(aurocs[name], 2) for aurocs in auroc_of.values()))
        for name in names
    ]
    examples = [
        (kind, figures["n_scenes"], figures["example"]["right"], figures["example"]["wrong"])
        for kind, figures in kinds.items()
        if kind != "one-word"
    ]
    return "\n\n".join(
        (
            table(("score", *kinds), rows),
            *ways_part(w),
            table(("kind", "scenes", "right, for example", "wrong"), examples),
            image("wrong-pairs", "AUROC of the better scores for each kind of wrong caption"),
        )
    )


def ways_part(w: Found) -> list[str]:
    """Every way of the scores of support, on the scenes that chose among them; nothing of a result without them."""
    if "support" not in w:
        return []
    s = w["support"]
    rows = [
        (f"**`{way}`**" if way == s["chosen"][part] else f"`{way}`", part, s["ways"][part][way],
         *(f"{value:.2f}" for value in auroc_by_kind.values()))
        for part, auroc_of in s["auroc_on_choice"].items() for way, auroc_by_kind in auroc_of.items()
    ]  # fmt: skip
    kinds = list(next(iter(s["auroc_on_choice"]["place"].values())))
    n = w["about"]["options"]["n_choice"]
    sentence = (
        "The ways of `position-support` (place, number), `attribution-support` and `ridge-support`, with their AUROC "
        f"on the {n} scenes of each kind that chose among them; in bold those chosen:"
    )
    return [sentence, table(("way", "of", "what", *kinds), rows)]


def pairs_plot(w: Found) -> bytes:
    names = dict.fromkeys(
        [w["headline"]["name"], "unsupported", "supported-share", "pooled-cosine", *SUPPORT, "caption-nll"]
    )
    groups = {
        kind: {name: figures["auroc"][name] for name in names if figures["auroc"].get(name)}
        for kind, figures in w["kinds"].items()
    }
    return plots.interval_plot(groups, label="AUROC, right against wrong caption", line=(0.5, "chance"))

"""Renders the demo's measured figures into docs/demo.md from the committed result files.

python -m precompute.demo.evaluation.report          # rewrite
python -m precompute.demo.evaluation.report --check  # exit 1 where the page is stale
"""

from pathlib import Path
from typing import Any

from precompute.demo.evaluation.markdown import RESULTS, Row, command, interval, read, share, splice, table

PAGE = Path("docs/demo.md")


def model_part(e: dict[str, Any], steering: dict[str, Any]) -> str:
    """The model without any SAE, and steering."""
    goals = (
        ("objects named in greedy captions, pairs never trained", "object_recall_unseen_pairs", "≥ .95, ≤ .05"),
        ("objects named in greedy captions, drawings never trained", "object_recall_unseen_drawings", "shown only"),
        ("colour of shapes in greedy captions", "shape_colour", "≥ .85, ≤ .2"),
        ("easy-VQA held out, shape", "easy_vqa_shape", "≥ .90"),
        ("easy-VQA held out, colour", "easy_vqa_colour", "≥ .90"),
    )
    rows: list[Row] = [(name, share(e[key]), share(e[f"{key}_shuffled"]), goal) for name, key, goal in goals]
    group = steering["groups"]["colours and shapes"]
    rows.append(
        (
            "steered towards a colour or shape, [harmonic mean](results.md#steering)",
            interval(group["features"]),
            f"random direction {interval(group['random'])}",
            "≥ .85, ≤ .05",
        )
    )
    return table(("what", "found", "control", "goal"), rows)


def words_part(e: dict[str, Any]) -> str:
    """The thirty words."""
    head = (
        "word", "feature", "F1 tokens", "F1 patches", "tokens active", "top-16 precision", "exchanged, 99 %",
        "box share", "raw direction", "",
    )  # fmt: skip
    rows = [
        (
            word, f"#{r['feature']}", f"{r['f1_text']:.2f}", f"{r['f1_image']:.2f}", f"{r['token_rate']:.2f}",
            f"{r['precision']:.2f}", f"{r['chance_p99']:.2f}", f"{r['box_share']:.3f}",
            f"{r['raw_direction_precision']:.2f}", "yes" if r["passes"] else "no",
        )
        for word, r in e["words"].items()
    ]  # fmt: skip
    passed_line = f"**{e['words_passed']} of {len(e['words'])}** words have a feature (goal: ≥ 22)."
    return f"{passed_line}\n\n{table(head, rows)}"


def sae_part(e: dict[str, Any], training: dict[str, Any]) -> str:
    """Quality of the SAE-V, and the sweep it came from."""
    q = e["sae_quality"]
    rows = [(m, q[m]["fvu"], q[m]["l0"], f"{q[m]['dead']} of {q['n_features']}") for m in ("text", "image")]
    recovery_text = ", ".join(f"{k.replace('patched_', '')} {v:.3f}" for k, v in q["loss_recovered"].items())
    losses = ", ".join(f"{k} {v:.3f}" for k, v in q["cross_entropy"].items())
    sweep = [
        (r["purpose"], r["layer"], f"{r['expansion']:g}", f"{r['l1']:g}", r["steps"], r["decoder_bias"], r["seed"], *(
            f"{r['fvu'][m]:.3f} / {r['l0'][m]:.0f}" for m in ("text", "image")
        ), r["dead"], f"{r['cosine']:.3f}", " and ".join(map(str, r["words"])), f"{r['mean_word_f1']:.3f}")
        for r in training["runs"]
    ]  # fmt: skip
    head = (
        "run", "layer", "expansion", "λ", "steps", "b_dec", "seed", "text FVU / L0", "image FVU / L0", "dead", "cosine",
        "words", "mean best word F1",
    )  # fmt: skip
    return "\n\n".join(
        (
            table(("modality", "FVU", "L0", "dead"), rows),
            f"Dead on both: {q['dead']}. Caption cross-entropy in nats: {losses}. Loss recovered: {recovery_text}.",
            f"The sweep, measured on {training['n_validation_scenes']} validation scenes of their own. "
            "Cosine: the mean over pairs of decoder directions. Words: how many of the thirty pass, with the features "
            "chosen on either half and tested on the other.",
            table(head, sweep),
        )
    )


def store_part(s: dict[str, Any]) -> str:
    """Planted pairs and images found by word, on the finished store."""
    auroc_of, validation = s["planted_auroc"], s["validation_auroc"]
    rows = [
        (
            f"**`{name}`**" if name == s["headline"] else f"`{name}`",
            *(interval(source[name][kind]) for source in (auroc_of, validation) for kind in ("swapped", "one-word")),
        )
        for name in auroc_of
    ]
    head = ("score", "planted, whole caption", "planted, one word", "validation, whole caption", "validation, one word")
    flags = [
        (kind, f["flag"], f"{f['found']} of {f['planted']}", f"{f['alarms_among_whole_pairs']} of {s['n_whole_pairs']}")
        for kind, f in s["planted_flags"].items()
    ]
    control = [
        (name, f"{v['cross_modal']} of {v['pair_tested']}", f"{v['t_test_passed']} of {v['tested']}",
         f"{v['mean_same_sample_rate']:.3f}")
        for name, v in (("as they are", s["shuffled_images"]["true"]),
                        ("exchanged", s["shuffled_images"]["images_exchanged"]))
    ]  # fmt: skip
    measured_names = [names_part(s["names"])] if "names" in s else []
    search = [
        (query, f"**{f['found']} of {f['of']}**", f"{f['shuffled']['mean_found']:g}, {f['shuffled']['most']}",
         ", ".join(f["missed"]) or "–")
        for query, f in s["search"].items()
    ]  # fmt: skip
    return "\n\n".join(
        (
            'AUROC of every score for "this caption belongs to this image", 95 % interval; the headline, in bold, '
            "is the best on validation scenes (goal on planted whole captions: ≥ .95).",
            table(head, rows),
            "What the flags find at their own thresholds:",
            table(("planted", "flag", "found", "alarms among whole pairs"), flags),
            "The same pass with the images exchanged among the pairs (`--shuffle-images`), a control that ought to "
            "fail. The t-test of ω, which decides nothing, passes there too (docs/method.md says why):",
            table(("images", "`cross-modal` of the tested", "pass the t-test", "mean `same_sample_rate`"), control),
            *measured_names,
            "Search by each of the thirty words: a feature named with the word is among the first ten or, as the best "
            "of its family, in the first three groups (goal: ≥ 27 of 30). The control: the answers to other words.",
            table(("query", "found", "other words' answers: mean, most", "not found"), search),
        )
    )


def families_part(f: dict[str, Any]) -> str:
    """Families of near-copies, tested on scenes that are not in the store."""
    rows = [
        (f"{name}, {kind}", f"{p['judged']:,}", f"{p['agree'] / max(p['judged'], 1):.3f}")
        for key, name in (("joined", "in one family"), ("random", "random (control)"))
        for noun, kind in (("things", "words and things in boxes"), ("backgrounds", "backgrounds and places"))
        for p in [f["precision"][f"{key}_{noun}"]]
    ]
    d, recall = f["directions"], f["same_joined"] / max(f["same_pairs"], 1)
    return "\n\n".join((
        f"{f['features']:,} features are in {f['families']:,} families of near-copies, at most {f['largest']} in one. "
        f"Do features of one family stand for the same? On {f['scenes']} scenes that are not in the store, the word of "
        "a feature's strongest text tokens and the thing in whose box its strongest patches lie (outside all boxes the "
        "background's colour or the place):",
        table(("pairs of features", "that can be judged", "stand for the same (precision)"), rows),
        f"Of {f['same_pairs']:,} pairs that stand for the same and are active on the same tokens (Jaccard index "
        f"of at least .7), {recall:.3f} are in one family (recall).",
        f"Directions: mean pairwise cosine {d['mean_pairwise_cosine']:.3f}; {d['near_copies']:.3f} of the features "
        f"have a near-copy (centred cosine of at least .95); {d['own_tokens']:.3f} promote tokens of their own (fewer "
        "than half of their ten are among the ten that most features promote); the lens is informative for "
        f"{d['informative_lens']:.3f}.",
    ))  # fmt: skip


def names_part(names: dict[str, Any]) -> str:
    """Names of features against captions and against the scenes."""
    rows = [
        (verdict, shares["n"], f"{shares['captions']:.2f}", f"{shares['truth']:.2f}", f"{shares['shown']:.2f}")
        for verdict, shares in names["by_verdict"].items()
    ]
    first = names["first_lines"]
    head = ("features", "number", "name ≥ .7 on captions", "on the true words", "name shown (≥ .6)")
    return (
        "Names of features, scored on samples that chose none: the share whose name reaches balanced accuracy .7 by "
        "the captions, and by what the scenes really hold (nouns, colours, the background; other words count as "
        f"failed).\n\n{table(head, rows)}\n\n"
        f"Of the first {first['lines']} lines of the list of features, **{first['true']}** name different things that "
        "at least .7 of the feature's 16 strongest images hold (goal: ≥ 22)."
    )


def render(results: Path = RESULTS) -> str:
    """The figures as Markdown."""
    e, s = read("demo-evaluation", results), read("demo-store", results)
    machine = e["about"]["machine"]
    return "\n\n".join(
        (
            f"Measured on {machine}, torch {e['about']['torch']}. Each stands beside its control: captions of other "
            "images, exchanged boxes, random features.",
            model_part(e, read("demo-steering", results)),
            words_part(e),
            sae_part(e, read("demo-sae-training", results)),
            store_part(s),
            *([families_part(s["families"])] if "families" in s else []),
        )
    )


def rendered_page(page: str, results: Path = RESULTS) -> str:
    """docs/demo.md with the figures in their place."""
    return splice(page, {"figures": render(results)}, PAGE)


if __name__ == "__main__":
    command(PAGE, rendered_page, "precompute.demo.evaluation.report")

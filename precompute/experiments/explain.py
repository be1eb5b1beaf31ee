"""Is the attribution of an answer right? Completeness, and parts beside what ablating their features does.

    python -m precompute.experiments.explain --demo demo

The model captions validation scenes that neither it nor its SAE-V has seen. Of each caption the first token that names
a thing is attributed. A run that was killed goes on behind its last scene.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from precompute.demo.drawing import draw
from precompute.demo.scenes import OBJECTS, SHAPES, Scene, make_scene, plural
from precompute.experiments.result_lines import append_line, read_lines
from precompute.experiments.script import demo_engine, run_script
from precompute.live.attribution import REST, Attribution
from precompute.live.engine import load_engine
from precompute.live.trial import Prompt, Removal, random_removals
from precompute.model.batch import Pair
from precompute.model.hooks import capture
from precompute.sae.encode import Scale
from precompute.store.reader import Store
from precompute.training.evaluate import replace_hidden
from precompute.utils.command_line import CommandOptions, Count, Seed
from precompute.utils.files import write_json
from precompute.utils.ownership import exclusive_file
from precompute.utils.progress import progress_bar
from precompute.utils.provenance import machine
from precompute.utils.stats import bootstrap_rows, hit_share, interval
from precompute.utils.types import Array

NOUNS = {form for noun in (*OBJECTS, *SHAPES) for form in (noun, plural(noun))}
DRAWS = ("any", "strongest")
"""How the features are drawn that are ablated one by one: among all that fire, and among the largest parts."""
N_STRONGEST = 20
RESAMPLES = 2000


class Options(CommandOptions):
    """What the measurement depends on; every field is an option of the command."""

    demo: Path = Path("demo")
    out: Path = Path("docs/results/explain.json")
    n_scenes: Count = 40
    """Captions whose word is attributed."""
    n_features: Count = 5
    """Features of each caption that are ablated one by one, of either draw."""
    n_first: Count = 30
    """Captions of which the first feature is ablated beside random ones."""
    n_random: Count = 5
    """Random features beside each first one."""
    first_index: int = 820_000
    """Validation scene from which they are taken."""
    max_tokens: Count = 12
    seed: Seed = 0

    def cli_cmd(self) -> None:
        with exclusive_file(self.out):
            write_json(self.out, run(self))
            part_of(self.out).unlink()


class Word(NamedTuple):
    """The first token of an answer that names a thing, and those before it."""

    prompt: Prompt
    answer: str
    ids: list[int]


def part_of(out: Path) -> Path:
    """The file of the scenes that are done."""
    return out.with_suffix(".part.jsonl")


def word_of(prompt: Prompt, max_tokens: int) -> Word | None:
    """None where the answer names no thing with one token."""
    ids, mllm = prompt.answer(max_tokens), prompt.mllm
    names = [mllm.token_text(token).strip() in NOUNS for token in ids]
    return Word(prompt, mllm.text_of(ids), ids[: names.index(True) + 1]) if any(names) else None


def log_odds_with(word: Word, kept_sd: Tensor | None, counted_s: Array) -> float:
    """Log-odds of the word with h at the positions counted replaced by `kept_sd`, or by 0."""
    by_td = None if kept_sd is None else kept_sd[torch.from_numpy(counted_s)]
    with replace_hidden(word.prompt.mllm, counted_s[None], by_td):
        return float(word.prompt.log_odds(word.ids)[-1])


def without_features(word: Word, a: Attribution) -> Tensor:
    """h [s, d] less Σ z_k d_k: the error and decode(0)."""
    prompt = word.prompt
    with capture(prompt.mllm.decoder_layer()) as outputs:
        prompt.log_odds(word.ids)
    removed_sd = torch.zeros_like(outputs[0][0])
    directions_fd = prompt.sae.directions_fd.float()
    removed_sd.index_add_(
        0, torch.from_numpy(a.position_e), torch.from_numpy(a.z_e)[:, None] * directions_fd[a.feature_e]
    )
    return outputs[0][0] - removed_sd


def measure_scene(scene: Scene, word: Word, family: Array, o: Options) -> dict[str, Any]:
    """The attribution of one word, and what ablating its features does to it."""
    prompt, a = word.prompt, word.prompt.attribution(word.ids)
    rng = np.random.default_rng([o.seed, scene.index])
    feature_n, part_n3 = a.by_feature()
    part_n = part_n3.sum(1)
    odds = float(prompt.log_odds(word.ids)[-1])
    top_n = np.argsort(-np.abs(part_n), kind="stable")[:N_STRONGEST]
    choices = (rng.permutation(items)[: o.n_features] for items in (len(part_n), top_n))
    drawn_of = dict(zip(DRAWS, choices, strict=True))
    pairs = [
        {
            "draw": name,
            "feature": int(feature_n[i]),
            "part": float(part_n[i]),
            "ablated": odds - float(prompt.log_odds(word.ids, [int(feature_n[i])])[-1]),
        }
        for name, indices in drawn_of.items()
        for i in indices.tolist()
    ]
    first = int(feature_n[0])
    controls = random_removals(Removal((first,)), feature_n.tolist(), family, 0, n_draws=o.n_random, seed=scene.index)
    of_removals = [logprob(word, removal.features) for removal in (Removal((first,)), *controls)]
    counted_s = a.side_s != REST
    parts = {"features": a.part_e.sum(), "error": a.error_g.sum(), "bias": a.bias_g.sum(), "rest": a.rest}
    return {
        "scene": scene.index, "caption": scene.caption, "answer": word.answer,
        "word": prompt.mllm.token_text(word.ids[-1]).strip(), "log_odds": odds, "total": a.total, "gap": a.gap,
        "parts": {name: float(part) for name, part in parts.items()},
        "without_features": odds - log_odds_with(word, without_features(word, a), counted_s),
        "without_h": odds - log_odds_with(word, None, counted_s),
        "pairs": pairs,
        "first": {
            "feature": first, "part": float(part_n[0]), "sides": part_n3[0].tolist(),
            "change": of_removals[0] - logprob(word), "random": [value - logprob(word) for value in of_removals[1:]],
        },
    }  # fmt: skip


def logprob(word: Word, features: Sequence[int] = ()) -> float:
    """Of the word with features ablated, in nats."""
    return float(word.prompt.logprobs(word.ids, features)[-1])


def rank_correlation(scenes: Sequence[Mapping[str, Any]], draw_name: str, seed: int) -> dict[str, Any]:
    """Spearman's ρ of parts with the effects of ablation, with the interval of a bootstrap over scenes."""
    points = [[(p["part"], p["ablated"]) for p in scene["pairs"] if p["draw"] == draw_name] for scene in scenes]

    def rho(rows: Sequence[int]) -> float:
        part_n, ablated_n = np.array([point for i in rows for point in points[i]]).T
        return float(spearmanr(part_n, ablated_n).statistic)

    chosen_wn = np.concatenate(list(bootstrap_rows(len(points), RESAMPLES, seed)))
    draws = np.array([rho(rows) for rows in chosen_wn.tolist()])
    return {"n": sum(map(len, points)), "rho": interval(rho(range(len(points))), draws)}


def summary(scenes: Sequence[Mapping[str, Any]], o: Options) -> dict[str, Any]:
    """The figures of all scenes."""
    first = [s["first"] for s in scenes[: o.n_first]]
    size = {name: [abs(s["parts"][name]) for s in scenes] for name in scenes[0]["parts"]}
    points_of = {
        name: [(sum(s["parts"][part] for part in parts), s[name]) for s in scenes]
        for name, parts in (("without_features", ["features"]), ("without_h", ["features", "error", "bias"]))
    }
    return {
        "largest_gap": max(s["gap"] for s in scenes),
        "median_size": {name: float(np.median(sizes)) for name, sizes in size.items()},
        "linear": {
            name: {
                "rho": float(spearmanr(*np.array(points).T).statistic),
                "median_part": float(np.median([a for a, _ in points])),
                "median_measured": float(np.median([b for _, b in points])),
            }
            for name, points in points_of.items()
        },
        "ablation": {name: rank_correlation(scenes, name, o.seed) for name in DRAWS},
        "first": {
            "more_than_mean": hit_share([s["change"] < np.mean(s["random"]) for s in first]),
            "more_than_each": hit_share([s["change"] < min(s["random"]) for s in first]),
            "median_change": float(np.median([s["change"] for s in first])),
            "median_random": float(np.median([change for s in first for change in s["random"]])),
            "on_image": hit_share([s["sides"][1] == max(s["sides"]) for s in first]),
        },
    }


def run(o: Options) -> dict[str, Any]:
    """Everything that the result file holds."""
    store = Store.open(o.demo / "store")
    mllm, sae = load_engine(demo_engine(o.demo), store.manifest, full=True)
    scale, family = Scale.from_manifest(store.manifest), store.features.family
    part = part_of(o.out)
    about = {**o.model_dump(exclude={"demo", "out", "n_scenes", "n_first"}), "content_id": store.manifest["content_id"]}
    scenes = [row for row in read_lines(part) if row.pop("about") == about]
    index = scenes[-1]["scene"] + 1 if scenes else o.first_index
    n_skipped = index - o.first_index - len(scenes)
    with progress_bar("explain", o.n_scenes, "scenes", len(scenes)) as progress:
        while len(scenes) < o.n_scenes:
            scene = make_scene("validation", index)
            index += 1
            word = word_of(Prompt(mllm, sae, scale, Pair("", [draw(scene)])), o.max_tokens)
            if word is None:
                n_skipped += 1
                continue
            scenes.append(measure_scene(scene, word, family, o))
            append_line(part, {**scenes[-1], "about": about})
            progress.update(1)
    store.close()
    return {
        "about": {
            "command": "python -m precompute.experiments.explain",
            "options": o.model_dump(exclude={"demo", "out"}),
            "content_id": about["content_id"],
            "torch": torch.__version__,
            "machine": machine(),
            "n_skipped": n_skipped,
            "skipped": "captions whose first thing is not one token",
        },
        **summary(scenes, o),
        "scenes": scenes,
    }


if __name__ == "__main__":
    run_script(Options, __doc__)

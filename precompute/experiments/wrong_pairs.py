"""Are planted wrong pairs told from right ones? Whole captions, one noun, one colour, one number, one place.

    python -m precompute.experiments.wrong_pairs --demo demo

The pairs are validation scenes that neither model, SAE-V nor store has seen; every caption, right or wrong, goes
through the model beside its image, by `saevx score`. The headline score is chosen on other scenes than those
reported.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field

from precompute.demo.dataset import SWAP_KINDS, has_swappable_word, share_nothing, swap_one_word
from precompute.demo.drawing import draw
from precompute.demo.scenes import Scene, scenes_from
from precompute.demo.training.scene_data import write_imagefolder
from precompute.errors import SaevxError
from precompute.experiments.script import demo_engine, run_script
from precompute.experiments.support.compare import SUPPORT, Fits, Support, compare
from precompute.experiments.support.reading import Engine
from precompute.model.batch import Pair
from precompute.options.score import ScoreOptions
from precompute.scoring.new_data import score_data
from precompute.scoring.scores import FROM_LIKELIHOOD
from precompute.store.reader import Store
from precompute.store.schema import SCORES, flag_column, score_column
from precompute.utils.command_line import CommandOptions
from precompute.utils.files import write_json
from precompute.utils.ownership import exclusive_file
from precompute.utils.provenance import machine
from precompute.utils.stats import auroc
from precompute.utils.types import Array

ONE_WORD = tuple(dict.fromkeys(SWAP_KINDS))
KINDS = ("whole", *ONE_WORD)
BASELINES = {"caption-nll-alone": "caption-nll without the image: how likely the caption is by itself; no SAE"}
UNSUPPORTED = {"unsupported": "minus the flag's score: token-level support"}
FROM_SAE = (*(name for name in SCORES if name not in (*FROM_LIKELIHOOD, "random")), *UNSUPPORTED, *SUPPORT)


class Options(CommandOptions):
    """What the measurement depends on; every field is an option of the command."""

    demo: Path = Path("demo")
    out: Path = Path("docs/results/wrong-pairs.json")
    n_scenes: int = 150
    """Scenes of each kind that are reported."""
    first_index: int = 600_000
    """Validation scene from which the reported ones are looked for."""
    n_choice: int = 40
    """Scenes of each kind that the headline score is chosen on."""
    first_choice: int = 500_000
    n_train: int = Field(default=2000, ge=16)
    """Train scenes on which counts and ridge are fitted."""
    seed: int = 0

    def cli_cmd(self) -> None:
        with exclusive_file(self.out):
            write_json(self.out, run(self))


class Case(NamedTuple):
    """A scene, its caption and a wrong one."""

    kind: str
    scene: Scene
    right: str
    wrong: str


def cases_of(kind: str, n: int, first_index: int, rng: np.random.Generator) -> list[Case]:
    """The first n validation scenes from `first_index` whose caption has a word of the kind, with the word
    exchanged; for `whole` the first n, each with the caption of another that shares no noun and no colour with it."""
    candidates = (
        s for s in scenes_from("validation", first_index) if kind == "whole" or has_swappable_word(s.caption, kind)
    )
    scenes = list(islice(candidates, n))
    if kind != "whole":
        return [Case(kind, s, s.caption, swap_one_word(s.caption, rng, kind)[0]) for s in scenes]
    other_scenes = [next((o for i in rng.permutation(n) if share_nothing(s, o := scenes[i])), None) for s in scenes]
    if None in other_scenes:
        raise SaevxError(f"Among {n} scenes some have no caption that is plainly wrong for them: ask for more scenes.")
    return [Case(kind, s, s.caption, o.caption) for s, o in zip(scenes, other_scenes, strict=True) if o]


def score_cases(cases: Sequence[Case], demo: Path) -> list[dict[str, Array]]:
    """Every score of the right captions and of the wrong ones, each float64 [n], NaN where it does not apply."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_imagefolder(
            folder,
            (
                (case.scene, {"id": f"{i}-{side}", "text": text, "file_name": f"images/{i:05d}.png"})
                for i, case in enumerate(cases)
                for side, text in (("right", case.right), ("wrong", case.wrong))
            ),
        )
        scores = scores_of(folder, folder / "scores.jsonl", demo)
    result = []
    for side in ("right", "wrong"):
        ids = [f"{i}-{side}" for i in range(len(cases))]
        score_of = {name: values_of(scores, ids, score_column(name)) for name in SCORES}
        score_of["caption-nll-alone"] = score_of["caption-nll"] - score_of["image-gain"]
        score_of["unsupported"] = -values_of(scores, ids, flag_column("unsupported"))
        result.append(score_of)
    return result


def scores_of(data: Path, out: Path, demo: Path) -> dict[str, dict[str, Any]]:
    """What `saevx score --nll` writes of each pair, by id."""
    options = ScoreOptions(
        data=str(data), store=demo / "store", out=out, nll=True, model=str(demo / "model"), sae=str(demo / "sae")
    )
    rows = map(json.loads, score_data(options).read_text().splitlines())
    return {row["id"]: row for row in rows}


def values_of(rows: Mapping[str, Mapping[str, Any]], ids: Sequence[str], column: str) -> Array:
    """A column of the rows with these ids, float64 [n]; NaN for null."""
    return np.array([np.nan if rows[i][column] is None else rows[i][column] for i in ids], dtype=np.float64)


def support_of(o: Options, choice: Sequence[Case], cases: Sequence[Case]) -> Support:
    """The scores of `support`, their ways chosen on the cases `choice`."""
    store = Store.open(o.demo / "store")
    engine = Engine.load(demo_engine(o.demo), store)
    store.close()
    fits, kinds = Fits.of_train(engine, o.n_train), [case.kind for case in choice]
    return compare(engine, fits, pairs_of(choice), pairs_of(cases), kinds)


def pairs_of(cases: Sequence[Case]) -> list[Pair]:
    """Right captions, then wrong ones, each beside its image."""
    images = [draw(case.scene) for case in cases]
    texts = [*(case.right for case in cases), *(case.wrong for case in cases)]
    return [Pair(text, [image]) for text, image in zip(texts, images * 2, strict=True)]


def halves(scores: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Scores [2n] of right captions, then of wrong ones, as those of each [n]."""
    n = len(next(iter(scores.values()))) // 2
    return [{name: score[at] for name, score in scores.items()} for at in (slice(n), slice(n, None))]


def join_scores(scores: list[dict[str, Array]], extra_scores: Mapping[str, Array]) -> list[dict[str, Array]]:
    """`score_cases`, and further scores [2n]."""
    return [{**scores_of_half, **extra} for scores_of_half, extra in zip(scores, halves(extra_scores), strict=True)]


def separability(
    cases: Sequence[Case], scores: list[dict[str, Array]], seed: int, resamples: int = 500
) -> dict[str, dict[str, Any]]:
    """For each kind, and for all one-word kinds together: the AUROC of every score for "this caption is right"."""
    kind_n = np.array([case.kind for case in cases])
    right, wrong = scores
    result = {}
    for kind in (*KINDS, "one-word"):
        of_kind = np.isin(kind_n, ONE_WORD) if kind == "one-word" else kind_n == kind
        first = cases[int(np.flatnonzero(of_kind)[0])]
        result[kind] = {
            "n_scenes": int(of_kind.sum()),
            "example": {"right": first.right, "wrong": first.wrong},
            "auroc": {name: auroc(right[name][of_kind], wrong[name][of_kind], seed, resamples) for name in right},
        }
    return result


def headline(auroc_of: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, float]]:
    """The score from the SAE whose mean AUROC over the kinds is highest, and that mean of each."""
    mean = {
        name: float(np.mean([(auroc_of[kind]["auroc"][name] or {"value": 0.0})["value"] for kind in KINDS]))
        for name in FROM_SAE
    }
    return max(mean, key=lambda name: mean[name]), mean


def all_cases(n: int, first_index: int, seed: int) -> list[Case]:
    rngs = {kind: np.random.default_rng([seed, i]) for i, kind in enumerate(KINDS)}
    return [case for kind in KINDS for case in cases_of(kind, n, first_index, rngs[kind])]


def run(o: Options) -> dict[str, Any]:
    """Everything that the result file holds."""
    store = Store.open(o.demo / "store")
    content_id = store.manifest["content_id"]
    store.close()
    choice = all_cases(o.n_choice, o.first_choice, o.seed)
    cases = all_cases(o.n_scenes, o.first_index, o.seed)
    support = support_of(o, choice, cases)
    choice_scores = join_scores(score_cases(choice, o.demo), support.choice)
    best_name, mean = headline(separability(choice, choice_scores, o.seed, resamples=1))  # no interval is looked at
    return {
        "about": {
            "command": "python -m precompute.experiments.wrong_pairs",
            "options": o.model_dump(exclude={"demo", "out"}),
            "content_id": content_id,
            "torch": torch.__version__,
            "machine": machine(),
            "measure": "AUROC for 'the caption is right', right against wrong captions beside the same images; "
            "95 % interval of a seeded bootstrap",
        },
        "scores": {**SCORES, **UNSUPPORTED, **SUPPORT, **BASELINES},
        "support": support.about,
        "headline": {
            "name": best_name,
            "chosen_by": "highest mean AUROC over the five kinds, on other scenes than those reported",
            "mean_auroc": mean,
        },
        "kinds": separability(cases, join_scores(score_cases(cases, o.demo), support.reported), o.seed),
    }


if __name__ == "__main__":
    run_script(Options, __doc__)

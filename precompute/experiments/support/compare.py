"""Position-aware, attribution-based and ridge support of captions: each in several ways, chosen on other scenes than
those reported."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from precompute.demo.drawing import draw
from precompute.demo.scenes import make_scene
from precompute.experiments.support import attribution, positions, ridge
from precompute.experiments.support.reading import Engine, Reading, read_pairs
from precompute.model.batch import Pair
from precompute.utils.stats import auroc
from precompute.utils.types import Array

SUPPORT = {
    "position-support": "where on the image the features of the caption's things fire, against the places and numbers "
    "that it claims; 0 without such a claim",
    "attribution-support": "what the log-probability of the caption's words owes to features of patches: activation "
    "× gradient after layer L",
    "ridge-support": "how well the caption's features fit those that ridge regression expects from the image's",
}
WAYS: dict[str, dict[str, str]] = {
    "place": positions.PLACE_WAYS,
    "number": positions.NUMBER_WAYS,
    "attribution-support": attribution.WAYS,
    "ridge-support": ridge.WAYS,
}
"""By what is chosen: `place` and `number` are the two parts of `position-support`."""
FIRST_TRAIN = 200_000
"""Train scene from which those are taken that counts and ridge are fitted on: neither model nor SAE-V was trained on
it, and captions and images are made as theirs were."""

Scores = dict[str, Array]


class Figures(NamedTuple):
    """Of n captions, what the three scores are made of."""

    text_nf: Array
    """float32 [n, F]: largest of the text tokens, z / p99.9."""
    image: dict[str, Array]
    """float32 by `ridge.POOLS`."""
    place: Scores
    """float64 [n] by `positions.PLACE_WAYS`."""
    counted: list[positions.Counted]
    attribution: Scores
    """float64 [n] by `attribution.WAYS`."""


def figures(readings: Iterable[Reading], support_f: Array) -> Figures:
    """All of each reading that is needed; the readings themselves are too large to hold."""
    text, pools, place, counts, attributions = [], [], [], [], []
    for reading in readings:
        text.append(reading.token_tf.max(axis=0, initial=0))
        pools.append(ridge.pool(reading.patch_pf, reading.grid))
        place.append(positions.place_scores(reading, support_f))
        counts.append(positions.count_groups(reading, support_f))
        attributions.append(attribution.scores(reading.attribution_t2))
    image = {name: np.stack([pool[name] for pool in pools]) for name in ridge.POOLS}
    return Figures(np.stack(text), image, columns(place), counts, columns(attributions))


def columns(rows: Sequence[Mapping[str, float]]) -> Scores:
    """Rows of the same names as an array of each."""
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}


class Fits(NamedTuple):
    """What was learnt from train scenes."""

    counter: positions.Counter
    expectation: ridge.Expectation

    @classmethod
    def of_train(cls, engine: Engine, n: int) -> Self:
        scenes = (make_scene("train", FIRST_TRAIN + i) for i in range(n))
        pairs = (Pair(scene.caption, [draw(scene)]) for scene in scenes)
        train = figures(read_pairs(engine, pairs), engine.support_f)
        return cls(positions.Counter.fitted(train.counted), ridge.Expectation.fitted(train.text_nf, train.image))

    def ways(self, set_figures: Figures) -> dict[str, Scores]:
        """Every way of every score, as in WAYS."""
        return {
            "place": set_figures.place,
            "number": columns([self.counter.scores(count) for count in set_figures.counted]),
            "attribution-support": set_figures.attribution,
            "ridge-support": self.expectation.scores(set_figures.text_nf, set_figures.image),
        }


class Support(NamedTuple):
    """The three scores of two sets of captions, right ones first, then as many wrong ones."""

    choice: Scores
    reported: Scores
    """float64 [2n] by SUPPORT."""
    about: dict[str, Any]
    """For the result file: the ways, their AUROC on the scenes that chose, and which were chosen."""


def compare(
    engine: Engine, fits: Fits, choice: Sequence[Pair], report: Sequence[Pair], kinds: Sequence[str]
) -> Support:
    """Reads both sets and chooses a way of each score on the first.

    Args:
        choice, report: pairs with right captions, then as many with wrong ones.
        kinds: what is wrong, of each wrong caption of `choice`.
    """
    captions_of_sets = (read_pairs(engine, pairs, gradients=True) for pairs in (choice, report))
    by_set = [fits.ways(figures(captions, engine.support_f)) for captions in captions_of_sets]
    auroc_of = {part: told_apart(ways, np.array(kinds)) for part, ways in by_set[0].items()}
    best_way = {part: choose(part, aurocs) for part, aurocs in auroc_of.items()}
    sets = [
        {
            "position-support": ways["place"][best_way["place"]] + ways["number"][best_way["number"]],
            **{name: ways[name][best_way[name]] for name in ("attribution-support", "ridge-support")},
        }
        for ways in by_set
    ]
    about = {
        "ways": WAYS,
        "chosen": best_way,
        "auroc_on_choice": auroc_of,
        "chosen_by": "place and number by their own AUROC, the others by the mean over the kinds, on other scenes than "
        "those reported",
        "ridge_lambda": {name: fit.strength for name, fit in fits.expectation.fits.items()},
    }
    return Support(sets[0], sets[1], about)


def told_apart(ways: Scores, kind_n: Array) -> dict[str, dict[str, float]]:
    """AUROC for "this caption is right" by way and kind.

    Args:
        ways: float64 [2n], right captions, then wrong ones. kind_n: str [n].
    """
    n, kinds = len(kind_n), dict.fromkeys(kind_n.tolist())

    def value(score: Array, of_kind: Array) -> float:
        return (auroc(score[:n][of_kind], score[n:][of_kind], resamples=1) or {"value": 0.5})["value"]

    return {name: {kind: value(score, kind_n == kind) for kind in kinds} for name, score in ways.items()}


def choose(part: str, auroc_of: Mapping[str, Mapping[str, float]]) -> str:
    """The way with the largest AUROC, the first of equals: on its own kind for a part of `position-support`, else in
    the mean over the kinds."""
    return max(
        auroc_of,
        key=lambda way: (
            auroc_of[way].get(part, 0.5)
            if part in ("place", "number")
            else float(np.mean(list(auroc_of[way].values())))
        ),
    )

"""Position-aware support: where on the image the features of a caption's words fire, and how many places there are.

A caption claims that one thing is left of, right of, above or below another, in a corner, or that there are so many.
Each claim is held against the heat map of the features of its words.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from scipy import ndimage

from precompute.demo.scenes import NUMBERS
from precompute.experiments.support.reading import FUNCTION_WORDS, Reading
from precompute.experiments.support.ridge import fit_ridge
from precompute.utils.types import Array

ASIDE = {"left": (-1, 0), "right": (1, 0)}
RELATIONS = {**ASIDE, "above": (0, -1), "below": (0, 1)}
"""Where the first thing stands, seen from the second: (to the right, downwards)."""
UPDOWN = {"top": -1, "bottom": 1}
COUNTS = {word: number for number, word in NUMBERS.items()}
POWERS = (1, 2, 4)
"""The centre of a heat map weighs its patches by a power of the heat."""
LEVELS = (0.3, 0.5, 0.7)
"""Of the hottest patch: from which on a patch belongs to a group."""
PLACE_WAYS = {
    **{f"centre-{p}": f"distance of the centres, heat to the power of {p}" for p in POWERS},
    **{f"centre-{p}-distinct": "likewise, by features that the other thing's words lack" for p in POWERS},
}
NUMBER_WAYS = {
    **{f"groups-{level:g}": f"connected groups of patches above {level:g} of the hottest" for level in LEVELS},
    "fitted": "ridge regression of the number on groups, areas and mass, fitted on train scenes",
}


class Claim(NamedTuple):
    """What a caption says of places or numbers, by places of its words."""

    kind: str
    """relation, corner or number."""
    first: list[int]
    second: list[int]
    """Of a relation alone."""
    where: tuple[int, int] = (0, 0)
    number: int = 0


def claims(words: Sequence[str]) -> list[Claim]:
    """What is claimed by a caption; its background is left out of the things."""
    end = len(words)
    if "background" in words:
        end = words.index("background")
        end = max((i for i in range(end) if words[i] in ("on", ",")), default=end)
    # In "left of" and "top left" the words of place name no thing.
    at_things = [i for i in range(end) if words[i] not in {*FUNCTION_WORDS, *RELATIONS, *UPDOWN, *COUNTS}]
    result = []
    for i in range(end):
        word, next_word = words[i], words[i + 1] if i + 1 < end else ""
        if word in COUNTS:
            result.append(Claim("number", [j for j in at_things if j > i], [], number=COUNTS[word]))
        elif word in UPDOWN and next_word in ASIDE:
            result.append(Claim("corner", at_things, [], (ASIDE[next_word][0], UPDOWN[word])))
        elif word in ("above", "below") or (word in ASIDE and next_word == "of"):
            sides = [j for j in at_things if j < i], [j for j in at_things if j > i]
            result.append(Claim("relation", *sides, RELATIONS[word]))
    return result


def strength(reading: Reading, words: Sequence[int]) -> Array:
    """float32 [F]: how strongly the features fire on these words, the largest of their tokens."""
    return reading.token_tf[np.isin(reading.word_t, words)].max(axis=0, initial=0)


def heat(reading: Reading, strength_f: Array, support_f: Array) -> Array:
    """float64 [rows, columns]: Σ_k w_k · r_word,k · r_patch,k."""
    heat_p: Array = reading.patch_pf @ (strength_f * support_f)
    return heat_p.reshape(reading.grid)


def centre(heat_rc: Array, power: int) -> Array:
    """float64 [2]: (x, y) of the heat's centre of mass in patches, from the image's middle; the middle without heat."""
    weight_rc = heat_rc.astype(np.float64) ** power
    if not weight_rc.any():
        return np.zeros(2)
    y, x = ndimage.center_of_mass(weight_rc)
    return np.array([x - (heat_rc.shape[1] - 1) / 2, y - (heat_rc.shape[0] - 1) / 2])


def place_scores(reading: Reading, support_f: Array) -> dict[str, float]:
    """By PLACE_WAYS, in patches: how far the things are from each other, or from the middle, in the direction that the
    caption claims; negative where it is the opposite, 0 without a claim."""
    score = dict.fromkeys(PLACE_WAYS, 0.0)
    for claim in claims(reading.words):
        if claim.kind == "number":
            continue
        one_f, other_f = strength(reading, claim.first), strength(reading, claim.second)
        for suffix, strengths in (
            ("", (one_f, other_f)),
            ("-distinct", (np.maximum(one_f - other_f, 0), np.maximum(other_f - one_f, 0))),
        ):
            heats = [heat(reading, strength_f, support_f) for strength_f in strengths]
            for power in POWERS:
                at = centre(heats[0], power) - (centre(heats[1], power) if claim.kind == "relation" else 0)
                distances = np.array([at[i] * claim.where[i] for i in (0, 1) if claim.where[i]])
                score[f"centre-{power}{suffix}"] += float(distances.min())
    return score


def group_figures(heat_rc: Array) -> Array:
    """float64 [7]: groups and areas at each of LEVELS, and the mass: the heat over that of the hottest patch."""
    hottest = float(heat_rc.max(initial=0))
    if hottest <= 0:
        return np.zeros(2 * len(LEVELS) + 1)
    masks = [heat_rc >= level * hottest for level in LEVELS]
    groups = [ndimage.label(mask)[1] for mask in masks]
    return np.array([*groups, *(mask.sum() for mask in masks), heat_rc.sum() / hottest], dtype=np.float64)


class Counted(NamedTuple):
    """What a caption says of a number, and the groups on the image."""

    number: int
    """0 without a claim."""
    figures: Array
    """float64 [7], of `group_figures`."""


def count_groups(reading: Reading, support_f: Array) -> Counted:
    """Of the first claim of a number."""
    for claim in claims(reading.words):
        if claim.kind == "number":
            heat_rc = heat(reading, strength(reading, claim.first), support_f)
            return Counted(claim.number, group_figures(heat_rc))
    return Counted(0, group_figures(np.zeros((1, 1))))


class Counter(NamedTuple):
    """Reads a number off the groups."""

    mean: Array
    """float64 [7], of the figures on train scenes."""
    deviation: Array
    """float64 [7], likewise."""
    slope: Array
    """float64 [7]."""
    usual: float
    """Mean number."""

    @classmethod
    def fitted(cls, counts: Sequence[Counted]) -> Self:
        """On captions that claim a number; one that always says 2.5 where there is none."""
        with_number = [count for count in counts if count.number]
        if len(with_number) < 3:
            return cls(np.zeros(7), np.ones(7), np.zeros(7), 2.5)
        x = np.stack([count.figures for count in with_number])
        y = np.array([[count.number] for count in with_number], dtype=np.float64)
        mean, deviation = x.mean(0), np.maximum(x.std(0), 1e-9)
        fit = fit_ridge((x - mean) / deviation, y)
        return cls(mean, deviation, fit.known_nf.T @ fit.dual_nf[:, 0], float(y.mean()))

    def scores(self, count: Counted) -> dict[str, float]:
        """By NUMBER_WAYS: minus the distance of the number read from the one claimed; 0 without a claim."""
        if not count.number:
            return dict.fromkeys(NUMBER_WAYS, 0.0)
        estimate = self.usual + ((count.figures - self.mean) / self.deviation) @ self.slope
        numbers = [*count.figures[: len(LEVELS)], estimate]
        return {name: -abs(float(n) - count.number) for name, n in zip(NUMBER_WAYS, numbers, strict=True)}

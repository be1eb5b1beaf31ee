"""The tour of the pages: five steps on what a store holds, each at an address of its own, `?tour=1` to `?tour=5`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from fastapi import Request

from backend.links import sample_path
from backend.stores import OpenStore

LOOKED_FOR = ("evidence", "label_score", "n_samples")
"""Figures by which the feature of the tour is chosen: the first that the store has."""
N_STEPS = 5


class Step(NamedTuple):
    """A page of the tour, and what to look at on it."""

    title: str
    text: str
    """One or two sentences."""
    path: str
    params: dict[str, Any]
    panel: str
    """Id of the element to look at; tour.css marks it."""


class Tour(NamedTuple):
    """The steps, and the one that a page is."""

    number: int
    """From 1."""
    steps: Sequence[Step]

    @property
    def step(self) -> Step:
        return self.steps[self.number - 1]


def tour_of(request: Request, store: OpenStore) -> Tour | None:
    """The step that the address asks for; None without one."""
    number = request.query_params.get("tour", "")
    step = int(number) if number.isascii() and number.isdigit() and len(number) < 3 else 0
    return Tour(step, steps(store)) if 1 <= step <= N_STEPS else None


def steps(open_store: OpenStore) -> list[Step]:
    """The steps on this store's own feature, pair and flag."""
    store, has_images = open_store.reader, open_store.has_images
    feature = best_feature(open_store)
    detail = store.features.get(feature)
    side = "image" if detail["max_image"] > detail["max_text"] else "text"
    examples = store.examples.of(feature, modality=side, limit=1)
    sample = examples[0]["sample_id"] if examples else store.samples.sample_id(0)
    flag = max(store.quality.flags, key=lambda f: f["count"], default={"name": None})["name"]
    words = "words and images" if has_images else "words"
    return [
        Step(
            "A feature", f"This is one of {store.n_features:,} features that the SAE has learnt. The line says what "
            f"its strongest {words} have in common{', and whether both mean the same' if has_images else ''}.",
            f"/features/{feature}", {}, "says",
        ),
        Step(
            "Where it fires", "The colour shows how strongly it fires. Weaker examples and counter-examples are one "
            "tab away: a good name holds there too.", f"/features/{feature}", {"modality": side}, "examples",
        ),
        Step(
            "A pair" if has_images else "A text",
            f"The same feature in one {'image and its caption' if has_images else 'text'}. "
            f"Choose any {'patch or word' if has_images else 'word'} to list all features that fire there.",
            sample_path(sample), {"f": feature if examples else None}, "stage",
        ),
        Step(
            "All features", "Each point is a feature, and near points have similar directions. Point at one to see its "
            "name; choose a colour above to see another figure.", "/map", {"feature": feature}, "map-panel",
        ),
        Step(
            "The data",
            f"A flag names {'pairs' if has_images else 'texts'} that look wrong, with a reason for each. Move "
            "the threshold to see how many there are, then export the others.",
            "/quality", {"flag": flag}, "flag-panel",
        ),
    ]  # fmt: skip


def best_feature(open_store: OpenStore) -> int:
    """The feature with the most evidence, of those with an ω if any has both; where none has evidence, with the best
    name, or in the most samples."""
    for figure in LOOKED_FOR:
        first, *next_items = open_store.reader.features.list(sort=figure, order="desc", limit=50).items
        if first[figure]:
            break
    with_omega = (item for item in (first, *next_items) if item["omega"] is not None and item[figure])
    return int(next(with_omega, first)["id"])

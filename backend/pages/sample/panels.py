"""The panels of a sample's page that are asked for: why a score is what it is, and the samples nearest to it."""

import math
from typing import Any, Literal, NamedTuple

from backend.api.sample.explained import get_nearest
from backend.drawing.figures import format_signed
from backend.pages.cards import sample_card
from backend.pages.scores_and_flags import is_possible, list_scores
from backend.pages.visit import PageVisit
from backend.schemas.samples import NearSamples, PairDetail, PairWhy, SampleDetail, ScorePart
from backend.stores import OpenStore
from precompute.scoring.why import EXPLAINED

N_EFFECTS = 40
N_NEAR = 12
QUICK = 50_000
"""Samples of a store whose page lists the nearest ones without being asked: more would take longer than the page."""
AGAINST_IMAGE = {"mismatch", "unsupported"}
"""Flags that another caption may explain."""


class Effect(NamedTuple):
    """What a feature does to a score, and the length of its bar, 0 to 1."""

    feature: ScorePart
    figure: str
    share: float


class Why(NamedTuple):
    """A score with the features behind it."""

    score: PairWhy
    description: str
    raising: list[Effect]
    lowering: list[Effect]


def why_panel(open_store: OpenStore, answer: PairWhy) -> Why:
    """The features behind a score as templates/pair/scores.html draws them."""
    scale = max((abs(e.effect) for e in (*answer.raising, *answer.lowering)), default=0.0) or 1.0
    digits = max(0, 2 - math.floor(math.log10(scale)))
    sides = [
        [Effect(e, format_signed(e.effect, digits), abs(e.effect) / scale) for e in side]
        for side in (answer.raising, answer.lowering)
    ]
    description = next(e.description for e in list_scores(open_store) if e.name == answer.score)
    return Why(answer, description, *sides)


def score_rows(open_store: OpenStore, detail: PairDetail) -> list[dict[str, Any]]:
    """The pair's scores as templates/pair/scores.html shows them."""
    descriptions = {score["name"]: score["description"] for score in open_store.reader.quality.scores}
    return [
        {
            "name": name, "value": value, "rank": detail.score_ranks.get(name),
            "description": descriptions.get(name, ""), "explained": name in EXPLAINED and value is not None,
        }
        for name, value in detail.scores.items() if is_possible(open_store, name)
    ]  # fmt: skip


class Near(NamedTuple):
    """The nearest samples as cards."""

    modality: str
    cards: list[dict[str, Any]]
    answer: NearSamples


def near_panel(visit: PageVisit, detail: SampleDetail, modality: Literal["text", "image"] | None) -> Near | None:
    """None if the store is large and nothing was asked for."""
    if modality is None and visit.reader.n_samples > QUICK:
        return None
    side = modality or ("image" if detail.images else "text")
    answer = get_nearest(visit.request, visit.store, detail.sample_id, side, N_NEAR)
    notes = visit.store.annotations
    cards = [
        {**sample_card(item, item.cosine), "shared": item.shared, **notes.list_fields("sample", item.sample_id)}
        for item in answer.items
    ]
    return Near(side, cards, answer)


LEAST_FIT = 0.1
"""Cosine below which a caption does not fit, whatever the others are like."""


def fitting_caption(detail: SampleDetail, panel: Near | None) -> dict[str, Any] | None:
    """Of the captions of the nearest images the one that fits this image best, where a flag says that the own caption
    does not and it fits less."""
    if panel is None or panel.modality != "image" or not AGAINST_IMAGE & {flag.name for flag in detail.flags}:
        return None
    fits = [item for item in panel.answer.items if item.caption_fit is not None and not AGAINST_IMAGE & set(item.flags)]
    caption = max(fits, key=lambda item: item.caption_fit or 0.0, default=None)
    own_fit = panel.answer.own_fit or 0.0
    if caption is None or (caption.caption_fit or 0.0) < max(own_fit, LEAST_FIT):
        return None
    return {"sample_id": caption.sample_id, "text": caption.text, "fit": caption.caption_fit, "own": own_fit}

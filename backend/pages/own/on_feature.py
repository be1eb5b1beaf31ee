"""A pair of one's own on the page of a feature: its value on each token and patch, and where they stand among all."""

from bisect import bisect_right
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from fastapi import HTTPException

from backend.api.own.pairs import Result, own_activations
from backend.drawing.heat import HeatImage, TokenRun, finest, heat, patch_path, token_runs
from backend.drawing.text import visible
from backend.live.query import OwnPair, Reading
from backend.pages.own.form import form_values
from backend.pages.visit import PageVisit
from backend.schemas.common import Histogram
from backend.schemas.features import FeatureDetail, TokenActivation
from backend.schemas.samples import GridValues
from backend.stores import OpenStore


class Tried(NamedTuple):
    """A pair, and what came of it."""

    own: OwnPair
    result: Result


class Side(NamedTuple):
    """The largest activation on one side of the pair."""

    kind: Literal["text", "image"]
    value: float
    share: float
    """÷ p99.9."""
    where: str
    below: float | None
    """Share of the store's activations on that side that are smaller, from the histogram; None where it fires on
    none."""


class OnFeature(NamedTuple):
    """What the feature does on the pair."""

    image: HeatImage | None
    tokens: list[TokenRun]
    sides: list[Side]
    unlike: bool
    """Whether the image is unlike the data."""

    def value(self, kind: str) -> float | None:
        """The largest activation on a side; None where it does not fire there."""
        return next((side.value for side in self.sides if side.kind == kind and side.value), None)


def panel_values(visit: PageVisit, feature: FeatureDetail, trial: Tried, top: tuple[float, float]) -> dict[str, Any]:
    """The values of templates/own/on_feature.html.

    Args:
        top: last steps of the scales of text and of images.
    """
    own_pair, result = trial
    links = visit.links
    values = form_values(visit, own_pair, [("feature", feature.id)])
    url = values["own_image"]["url"] if values["own_image"] else ""
    return {
        **values,
        "own_clear": links.again(image=None, text=None),
        "own_all": links.page("/try", **own_pair.params(), f=feature.id),
        "own_error": str(result.detail) if isinstance(result, HTTPException) else None,
        "own_result": on_feature(visit.store, own_pair, result, feature, top, url)
        if isinstance(result, Reading)
        else None,
    }


def on_feature(
    store: OpenStore, own_pair: OwnPair, reading: Reading, feature: FeatureDetail, top: tuple[float, float], url: str
) -> OnFeature:
    """What the feature does on a pair.

    Args:
        top: last steps of the scales of text and of images. url: of the uploaded image.
    """
    activations = own_activations(store, reading, [feature.id])
    texts = [
        TokenActivation(text=token.text, position=token.position, activation=token.values[0])
        for token in activations.tokens
        if token.modality == "text" or token.position == reading.unread
    ]
    sides, image = [], None
    if own_pair.text:
        strongest_text = max(texts, key=lambda token: token.activation or 0.0, default=None)
        where = f"“{visible(strongest_text.text.strip() or strongest_text.text)}”" if strongest_text else ""
        sides.append(side_of(feature, "text", (strongest_text and strongest_text.activation) or 0.0, where))
    grid = finest([grid for grid in activations.grids if grid.image == 0])
    if grid is not None and reading.size is not None:
        z, row, col = strongest_patch(grid)
        image_heat = heat(grid, grid.values[0], top=top[1], size=reading.size)
        if z:
            image_heat = replace(image_heat, peak=patch_path(grid, row, col))
        image = HeatImage(url, image_heat)
        sides.append(side_of(feature, "image", z, f"row {row}, column {col}"))
    fit = reading.detail["reconstruction"]
    return OnFeature(image, token_runs(texts, top[0]), sides, bool(fit and fit["unlike"]))


def strongest_patch(grid: GridValues) -> tuple[float, int, int]:
    """Activation, row and column of the strongest patch of the first feature."""
    places = [
        (value or 0.0, -row, -col) for row, values in enumerate(grid.values[0]) for col, value in enumerate(values)
    ]
    z, row, col = max(places)
    return z, -row, -col


def side_of(feature: FeatureDetail, kind: Literal["text", "image"], z: float, where: str) -> Side:
    """One side, beside what the store knows of it."""
    counts: Histogram = getattr(feature.histogram, kind)
    return Side(kind, z, z / feature.p999 if feature.p999 else 0.0, where if z else "", share_below(counts, z))


def share_below(histogram: Histogram, value: float) -> float | None:
    """Share of what a histogram counts in the bins below that of a value."""
    total = sum(histogram.counts)
    at = bisect_right(histogram.edges, value) - 1
    return sum(histogram.counts[: max(at, 0)]) / total if total and value > 0 else None

"""Lens, family, places and histograms of the page of one feature."""

from collections.abc import Sequence
from typing import Any, Literal

from backend.drawing.charts import Chart, chart
from backend.drawing.figures import format_significant
from backend.drawing.heat import level
from backend.drawing.text import visible
from backend.pages.feature.examples import BANDS
from backend.schemas.common import Histogram
from backend.schemas.features import Band, FeatureDetail, PlaceMap
from backend.stores import OpenStore

FAMILY_ROWS = 12


def lens_panel(detail: FeatureDetail, kind: Literal["centred", "raw"], store: OpenStore) -> dict[str, Any]:
    """The logit lens as feature.html draws it; `limit` is what chance gives among `n_tokens` tokens."""
    sides = {"centred": detail.logits.centred, "raw": detail.logits.raw}[kind]
    tokens = {side: [(visible(t.token), t.logit) for t in getattr(sides, side)] for side in ("promoted", "suppressed")}
    centred_lens = detail.logits.centred
    first_tokens = [side[0] for side in (centred_lens.promoted, centred_lens.suppressed) if side]
    max_logit = max((abs(t.logit) for t in first_tokens), default=None)
    return {
        "kind": kind,
        "sides": tokens,
        "largest": max_logit,
        "informative": detail.logits.informative,
        "limit": store.manifest.get("lens"),
    }


def family_panel(detail: FeatureDetail, store: OpenStore) -> list[dict[str, Any]]:
    """The first members of a feature's family; empty for a feature alone."""
    if detail.family is None:
        return []
    members: list[dict[str, Any]] = store.reader.families.get(detail.family)["members"]
    return members[:FAMILY_ROWS]


def place_cells(places: PlaceMap | None) -> list[dict[str, Any]]:
    """The map of places as squares of an SVG, with the mean activation and its level."""
    if places is None:
        return []
    max_mean = max(places.mean)
    return [
        {"x": i % places.columns, "y": i // places.columns, "mean": mean, "level": level(mean, max_mean)}
        for i, mean in enumerate(places.mean)
    ]


def histogram(
    detail: FeatureDetail, modality: Literal["text", "image"], name: str, own_value: float | None = None
) -> dict[str, Any]:
    """Activations in one modality as feature.html draws them, with marks at the 99.9th percentile and at the value of a
    pair of one's own, and a strip of the bands below it, each a link to its examples."""
    counts: Histogram = getattr(detail.histogram, modality)
    bars = chart(counts, mark=detail.p999, log=True)
    return {
        "kind": modality,
        "cls": {"text": "t", "image": "p"}[modality],
        "name": name,
        "total": sum(counts.counts),
        "bars": bars.bars,
        "mark": bars.mark,
        "own": bars.place(own_value, log=True) if own_value and bars.bars else None,
        "low": format_significant(bars.low),
        "high": format_significant(bars.high),
        "bands": band_strip(bars, getattr(detail.bands, modality)),
    }


def band_strip(bars: Chart, bands: Sequence[Band]) -> list[dict[str, Any]]:
    """The bands that hold any activation, as stretches of a histogram's axis."""
    strip = []
    for band in bands:
        start, stop = (bars.place(max(edge, bars.low), log=True) for edge in (band.low, band.high))
        if band.count and bars.bars:
            name = BANDS[str(band.band)][0]  # type: ignore[index]
            low, high = format_significant(band.low), format_significant(band.high)
            title = f"{name}: {low} to {high}, {band.count:,} active"
            strip.append({"value": str(band.band), "name": name, "title": title, "x": start, "width": stop - start})
    return strip

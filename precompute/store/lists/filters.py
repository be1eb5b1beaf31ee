"""Which features a list has: the filters of `GET /features`, and those of them that are conditions of SQL."""

from collections.abc import Iterable, Sequence
from typing import Literal, TypedDict

from sqlalchemy import ColumnElement

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.lists.marked import Marked, with_words
from precompute.store.sql import is_one_of
from precompute.utils.types import Item

RANGED = (
    "agreement", "label_score", "pair_lift", "lift", "omega", "density_text", "density_image", "n_samples",
    "place_share",
)  # fmt: skip
"""Columns that a list may be limited to a range of, ends included: `min_NAME`, `max_NAME`."""


class FeatureFilters(TypedDict, total=False):
    """Which features a list has, as in `GET /features` (docs/api.md); each filter may be left out or None."""

    verdict: str | Sequence[str] | None
    """One or several of `schema.VERDICTS`, or of the older names in `VERDICT_ALIASES`."""
    min_agreement: float | None
    max_agreement: float | None
    min_label_score: float | None
    max_label_score: float | None
    min_pair_lift: float | None
    max_pair_lift: float | None
    min_lift: float | None
    max_lift: float | None
    min_omega: float | None
    max_omega: float | None
    min_density_text: float | None
    max_density_text: float | None
    min_density_image: float | None
    max_density_image: float | None
    min_n_samples: float | None
    max_n_samples: float | None
    min_place_share: float | None
    max_place_share: float | None
    max_density: float | None
    """Largest share of tokens that activate it, in the modality where it is denser."""
    place: str | None
    """A place ("row 3"), a kind of place (`schema.PLACES`), "any", or "none"."""
    family: int | None
    q: str | None
    """Words of the label or of the promoted tokens."""
    ids: Iterable[int] | None
    has_label: bool | None
    marked: Marked | None
    """Which features by what people wrote about them."""
    fold: Literal["families", "names"] | None
    """One line a family, or a name, too: of the features of a family, or whose names begin with the same word, only the
    strongest of those that pass the other filters."""


def verdicts_of(names: Sequence[str]) -> list[str]:
    """The verdicts that are meant, in the order of `VERDICTS`."""
    verdicts = {verdict for name in names for verdict in s.VERDICT_ALIASES.get(name, (name,))}
    if unknown_names := verdicts - set(s.VERDICTS):
        raise SaevxError(f"Unknown verdict {unknown_names.pop()!r}: use one of {', '.join(s.VERDICTS)}.")
    return [name for name in s.VERDICTS if name in verdicts]


def conditions(filters: Item) -> list[ColumnElement[bool]]:
    """Those of `FeatureFilters` that SQLite decides, as far as they are neither left out nor None: all but the ranges,
    `verdict`, `family` and `fold`, which whole.py reads off columns in memory."""
    c = s.features.c
    where: list[ColumnElement[bool]] = []
    if "max_density" in filters:
        where.append(c.max_density <= filters["max_density"])
    if (place := filters.get("place")) == "none":
        where.append(c.place.is_(None))
    elif place == "any":
        where.append(c.place.is_not(None))
    elif place is not None:
        where.append(c.place.startswith(f"{place} ") if place in s.PLACES else c.place == place)
    if "ids" in filters:
        where.append(is_one_of(c.id, filters["ids"]))
    if "has_label" in filters:
        where.append(c.label.is_not(None) if filters["has_label"] else c.label.is_(None))
    if filters.get("q", "").strip():
        where.append(with_words(c.id, "feature_fts", filters["q"], filters.get("marked")))
    if "marked" in filters:
        where += filters["marked"].conditions(c.id)
    return where

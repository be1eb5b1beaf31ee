"""Two features beside each other, and the features of two stores."""

from __future__ import annotations

from backend.schemas.common import Modality, Model
from backend.schemas.features import Feature, FeatureDetail, Kind, Measures


class Together(Measures):
    """How often the two fire in the same samples, each on one side."""

    kind: Kind
    a: int
    """The feature that the pair has first; for `text-image`, the one on text."""
    b: int
    sides: list[Modality]
    """Of `a` and of `b`."""


class FeatureComparison(Model):
    """Two features of one store."""

    a: FeatureDetail
    b: FeatureDetail
    cosine: float | None
    """Of their decoder directions without the mean direction; null where one has none."""
    cosine_raw: float | None
    """Of their decoder directions as they are."""
    same_family: bool
    """Whether they are near-copies of one another."""
    together: list[Together]
    """Pairs of their sides that share samples; empty where the store lists none."""
    promoted: list[str]
    """Tokens that both promote."""


class Match(Model):
    """A feature and its counterpart in another store."""

    feature: Feature
    other: Feature | None
    """The feature of the other store with the nearest decoder direction; null where this one has no direction."""
    cosine: float | None
    """Of the two directions, each without the mean direction of its own store."""
    mutual: bool
    """Whether each is the nearest of the other."""


class StoreComparison(Model):
    """A page of the list of features, each with its counterpart in another store."""

    items: list[Match]
    total: int
    next: str | None
    note: str | None
    """What to bear in mind where model, layer or data differ."""

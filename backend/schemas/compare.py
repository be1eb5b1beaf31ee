"""Two features beside each other, and the features of two stores."""

from typing import Literal

from backend.schemas.common import Modality, Model
from backend.schemas.features import Feature, FeatureDetail, Kind, Measures

MatchBy = Literal["direction", "samples"]


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
    """The feature of the other store that is most like it; null where this one cannot be compared."""
    cosine: float | None
    """Of the two directions, each without the mean direction of its own store; by samples, of their largest activations
    on the texts and on the images of the shared samples, each without its mean."""
    mutual: bool
    """Whether each is the nearest of the other."""


class Matched(Model):
    """How the features of two stores were matched."""

    by: MatchBy
    """By decoder direction, or by the samples that both stores hold."""
    n_shared: int | None = None
    """By samples: how many samples both stores hold."""
    n_compared: int | None = None
    """By samples: how many of them were compared."""


class StoreComparison(Matched):
    """A page of the list of features, each with its counterpart in another store."""

    items: list[Match]
    total: int
    next: str | None
    note: str | None
    """What to bear in mind where model, layer or data differ."""


class LookedAt(Matched):
    """How many features of a store were looked at for a match."""

    n_looked_at: int
    """Those first in the default order."""
    n_alive: int
    """All that are not dead."""


class Unmatched(LookedAt):
    """A page of the features without a match, each with what comes nearest."""

    items: list[Match]
    total: int
    next: str | None


class MatchedPoint(Model):
    """A feature and its match; of each figure, that of the feature and that of the match."""

    feature: int
    other: int
    """Its match in the other store."""
    label: str | None
    cosine: float
    """As in the list."""
    mutual: bool
    """Whether each is the best match of the other."""
    agreement: tuple[float | None, float | None]
    """Here and there."""
    density_text: tuple[float, float]
    """Here and there."""
    density_image: tuple[float, float]
    """Here and there."""


class MatchedPoints(LookedAt):
    """Matched features, for a chart."""

    points: list[MatchedPoint]
    """Those of most evidence first."""
    n_matched: int
    """All features with a match."""
    n_mutual: int
    """Of them, those that are each other's best match."""


class LayerStore(Model):
    """A store of the same model and data, in one of its layers."""

    store: str
    layer: int
    current: bool
    """Whether it is the store of the request."""


class LayerPlace(LayerStore):
    """Where a feature or a sample is in it."""

    feature: int | None = None
    """Its best match; null without one."""
    cosine: float | None = None
    """Of the best match, also where it is too small for a match."""
    by: MatchBy | None = None
    """How the feature was matched."""
    sample_id: str | None = None
    """The same sample; null where the store does not hold it."""
    sentence: str | None = None
    """What became of the place, in words."""

"""Search, scoring, and pairs of one's own."""

from typing import Literal

from backend.schemas.common import Grid, ImageRef, Modality, Model, Verdict, View, WrittenAbout
from backend.schemas.features import FeatureRef
from backend.schemas.samples import PairDetail, Sample
from backend.schemas.steering import PatchAt


class UploadedImageRef(ImageRef):
    """An image that the server holds."""

    hash: str
    """Names it: `image_hash` of `POST /search` and `POST /steer`, `image` in the addresses of their pages."""


class RemovedImage(Model):
    """An image that the server no longer holds."""

    hash: str


class WordFeature(FeatureRef, WrittenAbout):
    """A feature that a search by words has matched."""

    verdict: Verdict
    agreement: float | None = None
    """Share of its strongest images whose caption has one of its top words, beyond their base rate."""
    omega: float | None = None
    lift: float | None = None
    n_samples: int
    promoted: list[str]
    """Tokens that its logit lens promotes."""


class WordSearch(Model):
    """Results of a search by words."""

    q: str
    features: list[WordFeature]
    n_features: int
    """Features that have all the words in their label or promoted tokens: `GET /features?q=` lists them."""
    samples: list[Sample]
    n_samples: int
    """Captions that have all the words, counted up to 1,000: `GET /samples?q=` lists them."""


class FeatureHit(FeatureRef):
    """A feature that the query activates, ranked by strength × log(N / n)."""

    verdict: Verdict
    score: float
    """For a query with both modalities, the smaller of the two scores."""
    strength_text: float | None = None
    """Largest activation on the query's text, divided by the feature's 99.9th percentile."""
    strength_image: float | None = None
    score_text: float | None = None
    score_image: float | None = None
    outside: bool = False
    """Whether a strength exceeds 1.5: the query lies outside the data. A score counts a strength as at most 1."""
    density_text: float
    density_image: float
    grids: list[Grid] | None = None
    """Activations on the query's image; null if not available."""


class GroupFeature(FeatureRef):
    """A feature of a group of a search by image."""

    verdict: Verdict
    score: float
    """Its largest capped strength in the region × log(N / n) × the share of its activation that lies in the region."""


class GroupFamily(Model):
    """Features of one family or name."""

    family: int
    """Family of the best feature, which is the number of a feature; one without family is its own."""
    features: list[GroupFeature]
    """Those that the query activates, best first, at most 12."""


class SearchGroup(Model):
    """What one part of the query's image activates."""

    kind: Literal["region", "background", "place"]
    """A region: patches on which the same features are strong; `background`: the region with most of the image's
    border; `place`: the features that are tied to a place of the image, whatever it shows."""
    patches: list[PatchAt]
    """Empty for `place`."""
    families: list[GroupFamily]
    """The best three."""


class SampleHit(Model):
    """A sample near the query."""

    sample_id: str
    text: str
    images: list[ImageRef]
    modality: Modality
    """The modality of query and sample that was compared."""
    cosine: float


class Reconstruction(Model):
    """How well the SAE rebuilds the query's image. Where it fails, the features say little."""

    fvu: float
    """Fraction of the data's variance unexplained on the query's image, as `fvu_image` of a sample."""
    store_fvu: float | None = None
    """Of all image tokens of the store."""
    limit: float | None = None
    """What 99 % of the store's images do not exceed."""
    unlike: bool
    """Whether `fvu` is above `limit`: the image is unlike the data."""


class LiveSearch(Model):
    """Results of a search by an image, words or both."""

    features: list[FeatureHit]
    dense: list[FeatureHit]
    """Features with a density over 10 % in either modality, listed separately."""
    n_dense: int
    groups: list[SearchGroup]
    """For a query with an image: its regions, best first, the background, and what is tied to a place."""
    samples: list[SampleHit]
    tokens: list[str]
    views: list[View]
    reconstruction: Reconstruction | None = None
    """For a query with an image."""


class OwnImageRef(ImageRef):
    """An uploaded image."""

    hash: str


class TriedPair(PairDetail):
    """A pair of one's own with all that a store has of a sample. Without text or without image it has no flags that
    need that side, and scores that compare the two say nothing."""

    text: str
    images: list[OwnImageRef]
    """The image, if there is one."""
    n_text: int
    n_image: int
    reconstruction: Reconstruction | None = None
    """Of the image."""
    unread: int | None = None
    """Position of a token that is not read: the first one of several words without image, which stands behind a neutral
    image in a state unlike any of the data."""
    samples: list[SampleHit]
    """The nearest samples of each side."""


class MatrixPair(Model):
    """A column of the matrix: a sample, or a pair of one's own."""

    sample_id: str | None = None
    text: str
    image: OwnImageRef | ImageRef | None = None
    reason: str | None = None
    """Why it was not read."""


class MatrixCell(Model):
    """Largest activation of a feature on each side of a pair, in units of the feature's p99.9."""

    text: float | None = None
    """Null where the pair has not this side."""
    image: float | None = None


class Matrix(Model):
    """Features × pairs."""

    features: list[FeatureRef]
    pairs: list[MatrixPair]
    """Samples first, then one's own, in the order of the request."""
    cells: list[list[MatrixCell]]
    """Per feature: one for each pair."""

"""A visitor's own pair."""

from __future__ import annotations

from backend.schemas.common import ImageRef, Model
from backend.schemas.features import FeatureRef
from backend.schemas.live import Reconstruction, SampleHit
from backend.schemas.samples import PairDetail


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

"""A visitor's own pair."""

from __future__ import annotations

from backend.schemas.common import ImageRef
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
    """Position of a token that is not read: the first one of several words without image, which stands behind a neutral image
    in a state unlike any of the data."""
    samples: list[SampleHit]
    """The nearest samples of each side."""

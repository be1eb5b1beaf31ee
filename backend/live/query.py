"""The query of a search, as the model or the pass has read it, and a visitor's own pair."""

from typing import Any, NamedTuple

import numpy as np
from fastapi import HTTPException

from precompute.live.feature_search import maxima
from precompute.store.events import SampleEvents, patches
from precompute.store.schema import IMAGE, SPECIAL
from precompute.utils.types import Array


class Query(NamedTuple):
    """What a search ranks."""

    max_f2: Array
    """float64 [n_features, 2]: its largest activation on text and on images, in the SAE's units."""
    modalities: tuple[int, ...]
    """TEXT, IMAGE or both."""
    events: SampleEvents | None
    """For the places where its features fire; None if they are not available."""
    views: list[list[Any]]
    """Grids of patches: rows, columns, box in pixels of the original, image."""
    row: int | None = None
    """Of a stored sample that is the query, and is therefore not listed among the nearest."""
    fvu: float | None = None
    """Fraction of variance unexplained on its image, as a sample's `fvu_image`."""
    tokens: tuple[str, ...] = ()
    """Of its words, as the live model reads them."""

    def at_patch(self, patch: tuple[int, int, int]) -> Array:
        """`max_f2`, with the image's only on that patch (view, row, column).

        Raises:
            HTTPException: 422 if the image has no such patch, 409 if the activations are not available.
        """
        if self.events is None:
            raise HTTPException(409, "Activations on patches are not available for this query: search without `patch`.")
        where = patches(self.events, self.views)
        at_place = (where.view == patch[0]) & (where.row == patch[1]) & (where.col == patch[2])
        if not at_place.any():
            raise HTTPException(422, f"The image has no patch {','.join(map(str, patch))} that counts: choose another.")
        elsewhere = self.events.modality_t == IMAGE
        elsewhere[where.position[at_place]] = False
        modality_t = np.where(elsewhere, SPECIAL, self.events.modality_t)
        return maxima(self.events._replace(modality_t=modality_t), len(self.max_f2))


class OwnPair(NamedTuple):
    """What an address can name: a text, an uploaded image, or both."""

    text: str = ""
    image: str | None = None
    """Hash of the upload."""

    def params(self) -> dict[str, str | None]:
        """As parameters of an address."""
        return {"image": self.image, "text": self.text or None}


class Reading(NamedTuple):
    """What the model read."""

    detail: dict[str, Any]
    """As `schemas.live.TriedPair`, without addresses of images."""
    query: Query
    """For a search by it."""
    size: tuple[int, int] | None
    """Width and height of the image, in pixels."""
    unread: int | None
    """Position of the first token of several words without image, which stands in a state unlike any stored one."""

    @property
    def events(self) -> SampleEvents:
        assert self.query.events is not None  # always those of the model
        return self.query.events

    @property
    def pair(self) -> dict[str, Any]:
        """Views and images, as `store.places` takes them."""
        width, height = self.size or (0, 0)
        return {"views": self.query.views, "images": [{"width": width, "height": height}] if self.size else []}

"""What every part of the API shares, and stores."""

from __future__ import annotations

import datetime as dt
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

Modality = Literal["text", "image"]
Verdict = Literal["cross-modal", "unaligned", "text-only", "image-only", "too-rare", "dead"]
ScoreName = Literal[
    "cosine",
    "cosine-weighted",
    "cosine-cooccurring",
    "cosine-mean",
    "pooled-cosine",
    "supported-share",
    "caption-nll",
    "l0",
    "cooccurring-l0",
    "random",
]
FlagName = Literal[
    "mismatch",
    "unsupported",
    "near-duplicate",
    "blank",
    "dark",
    "blurred",
    "tiny",
    "empty-text",
    "repeated-text",
    "reconstruction",
    "few-features",
]
Order = Literal["asc", "desc"]
T = TypeVar("T")


class Model(BaseModel):
    """Base of every reply: the docstring below a field is its description in OpenAPI."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)


class Page(Model, Generic[T]):
    """One page of a list."""

    items: list[T]
    total: int
    """Length of the whole list under the same filters."""
    next: str | None = None
    """Pass as `cursor` for the next page; null on the last one."""


class Problem(Model):
    """RFC 9457 problem details: the body of every error, media type application/problem+json."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    """One sentence that says what is wrong and, where there is one, the way out."""
    instance: str
    """Path of the request."""
    errors: list[dict[str, Any]] | None = None
    """For 422: each wrong parameter with its place and reason."""


class LiveStatus(Model):
    """The live model behind image search, scoring and steering."""

    state: Literal["off", "loading", "ready", "failed"]
    reason: str | None = None
    """Why it rests, when it is not ready."""
    waiting: int = 0
    """Requests queued."""


class Modal(Model, Generic[T]):
    """The same figure for each modality."""

    text: T
    image: T


class Histogram(Model):
    """Counts between edges; len(edges) = len(counts) + 1."""

    edges: list[float]
    counts: list[int]


class Auroc(Model):
    """How well a score tells pairs with a swapped caption from the data's own."""

    value: float
    low: float | None = None
    high: float | None = None


class ImageRef(Model):
    """An image of a sample."""

    url: str
    width: int
    height: int


class View(Model):
    """A grid of patches over a box of an image."""

    rows: int
    cols: int
    box: list[float]
    """x0, y0, x1, y1 in pixels of the original image."""
    image: int = 0


class Patch(Model):
    """One image token."""

    view: int
    row: int
    col: int
    box: list[float]
    """x0, y0, x1, y1 in pixels of the original image."""
    image: int = 0
    """Which image of the sample."""


class Grid(View):
    view: int
    values: list[list[float]]
    """Activation per patch: rows of columns, 0 where inactive."""


class StoreSummary(Model):
    """A finished store, as its manifest states it."""

    name: str
    """What `store=` takes."""
    model: str
    layer: int
    """Decoder layer of the residual stream, counted from 0."""
    d_model: int
    n_features: int
    n_samples: int
    n_text_tokens: int
    n_image_tokens: int
    sae: str
    dataset: str
    created: dt.datetime | None = None
    version: str
    """Code version that wrote the store."""
    content_id: str
    """Hash of the store's content: what caches may key on."""


class StoreDetail(StoreSummary):
    """One store with its whole manifest and what the live model says."""

    verdicts: dict[str, int]
    """Number of features per verdict."""
    n_special_tokens: int
    n_sink_tokens: int
    n_quarantined: int
    """Rejected rows of the data: `GET /rejected` lists them with their reasons."""
    delta: dict[str, Any]
    """Activation threshold of ω: its kind and value."""
    quality: dict[str, Any]
    """FVU, L0 and dead features per modality."""
    live: LiveStatus
    manifest: dict[str, Any]
    """The store's manifest; in place of the checksums and sizes of its images `images`, their number and bytes."""


class Health(Model):
    """The process answers; browsing works whatever `live` says."""

    status: Literal["ok"]
    version: str
    stores: list[str]
    live: LiveStatus
    """Of the default store's model."""


class Ready(Model):
    """Stores are open; the live model is ready, or rests by choice."""

    ready: bool
    stores: list[str]
    """Those that can be read."""
    unavailable: dict[str, str]
    """Those that cannot, each with one sentence why."""
    live: LiveStatus

"""Models that every part of the API shares, and stores."""

import datetime as dt
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from precompute.store import schema as s
from precompute.store.companion_files import HALLUCINATION
from precompute.store.lists.matches import MATCH

Modality = Literal["text", "image"]
if TYPE_CHECKING:
    Verdict: TypeAlias = str
    VerdictFilter: TypeAlias = str
    ScoreName: TypeAlias = str
    FilterName: TypeAlias = str
    FlagName: TypeAlias = str
    FeatureSort: TypeAlias = str
    SampleSort: TypeAlias = str
else:  # every name stands in the store's lists alone
    Verdict, ScoreName, FlagName = Literal[*s.VERDICTS], Literal[*s.SCORES], Literal[*s.FLAGS]
    FilterName = Literal[*s.SCORES, *s.SELECTIONS]
    VerdictFilter = Literal[*s.VERDICTS, *s.VERDICT_ALIASES]  # older versions' names are still taken
    FeatureSort, SampleSort = Literal[*s.FEATURE_SORTS, HALLUCINATION, MATCH], Literal[*s.SAMPLE_SORTS]
Order = Literal["asc", "desc"]
Band = Literal["-1", "0", "1", "2", "3", "counter"]
T = TypeVar("T")


class Model(BaseModel):
    """Base of every reply: the docstring below a field is its description in OpenAPI."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)


class Body(BaseModel):
    """Base of what requests send as JSON: a field that is not known is an error."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class WrittenAbout(Model):
    """What people wrote about a feature or sample; `GET /annotations` has all of it."""

    own_label: str | None = None
    """A person's name for it: pages show it before the automatic one."""
    tags: list[str] = Field(default_factory=list)
    reviewed: bool = False


class Page(Model, Generic[T]):
    """One page of a list."""

    items: list[T]
    total: int
    """Number of items of the whole list, with the same filters."""
    next: str | None = None
    """Pass as `cursor` for the next page; null on the last one."""


class Problem(Model):
    """RFC 9457 problem details: the body of every error, media type application/problem+json."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    """One sentence that says what is wrong and, if possible, what to do."""
    instance: str
    """Path of the request."""
    errors: list[dict[str, Any]] | None = None
    """For 422: each wrong parameter, with its name in `where` and the `reason`."""


class LiveStatus(Model):
    """The live model behind image search, scoring and steering."""

    state: Literal["off", "loading", "ready", "failed"]
    reason: str | None = None
    """Why it is not ready."""
    waiting: int = 0
    """Number of requests in the queue."""


class Modal(Model, Generic[T]):
    """A figure for each modality."""

    text: T
    image: T


for generic in (Page, Modal):
    # Their fields have their descriptions. For each `Page[...]` Pydantic would seek another source in all modules that
    # are imported: 0.05 s. A class with fields of its own takes the configuration of Model again.
    generic.model_config["use_attribute_docstrings"] = False


class Histogram(Model):
    """Counts between consecutive edges; len(edges) = len(counts) + 1."""

    edges: list[float]
    counts: list[int]


class FeatureDistribution(Histogram):
    """How a figure is distributed over the features of the store that have it. The first and the last bin hold what
    lies beyond them too."""

    name: str
    """`GET /features` takes `min_NAME` and `max_NAME`."""
    log: bool
    """Whether the bins are equally wide on a logarithmic axis."""
    n_missing: int
    """Features without the figure; on a logarithmic axis, those with 0 too."""


class VerdictCounts(Model):
    """Features by verdict."""

    verdicts: dict[str, int]
    """Every verdict with the `total` that the list has with it and the other filters."""


class Auroc(Model):
    """How well a score separates the data's own pairs from pairs with a swapped caption, with a 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None


class ImageRef(Model):
    """An image of a sample."""

    url: str
    width: int
    height: int


class View(Model):
    """A grid of patches over a part of an image."""

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
    """Number of the image within the sample, from 0."""


class Grid(View):
    """The activations of a feature on the patches of one view."""

    view: int
    values: list[list[float]]
    """Activation per patch: rows of columns; 0 if inactive."""


class StoreSummary(Model):
    """A finished store, from its manifest."""

    name: str
    """Value for `store=`."""
    model: str
    layer: int
    """Decoder layer whose residual stream is read, counted from 0."""
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
    """Hash of the store's content, for use as a cache key."""


class StoreDetail(StoreSummary):
    """One store with its whole manifest and the state of its live model."""

    verdicts: dict[str, int]
    """Number of features per verdict."""
    n_special_tokens: int
    n_sink_tokens: int
    n_quarantined: int
    """Rejected rows of the data: `GET /rejected` lists them with their reasons."""
    delta: dict[str, Any]
    """Activation threshold δ of ω: its kind and value."""
    quality: dict[str, Any]
    """FVU, L0 and dead features per modality."""
    live: LiveStatus
    manifest: dict[str, Any]
    """The store's manifest. Its images have no checksums and sizes here; `images` gives their number and bytes."""


class Health(Model):
    """The process answers. Browsing works in every state of `live`."""

    status: Literal["ok"]
    version: str
    stores: list[str]
    live: LiveStatus
    """State of the default store's model."""


class Ready(Model):
    """Whether all stores are open and every live model is ready or off."""

    ready: bool
    stores: list[str]
    """Stores that can be read."""
    unavailable: dict[str, str]
    """Stores that cannot be read, each with one sentence why."""
    live: LiveStatus

"""What the API says and hears, one model per shape. Field names are the method's terms; activations are the
SAE's real units (the run-time input scaling undone), never the store's float16 units."""

from __future__ import annotations

import datetime as dt
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

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


class SaeInfo(Model):
    """The sparse autoencoder a store was made with."""

    name: str
    sha256: str
    architecture: str | None = None
    l0: float | None = None
    """Mean active features per token on this store's data."""


class Modal(Model, Generic[T]):
    """The same figure for each modality."""

    text: T
    image: T


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
    """Rows of the data that could not be read and were set aside."""
    delta: dict[str, Any]
    """Activation threshold of ω: its kind and value."""
    quality: dict[str, Any]
    """FVU, L0 and dead features per modality."""
    live: LiveStatus
    manifest: dict[str, Any]


class FeatureRef(Model):
    """A feature where it is only named."""

    id: int
    label: str | None = None


class Feature(FeatureRef):
    """A row of the feature list. Null where METHOD gives no value (see the verdict)."""

    verdict: Verdict
    label_score: float | None = None
    """How well the label's word tells where it fires on text from where it does not."""
    density_text: float
    """Share of text tokens on which it is active."""
    density_image: float
    """Share of image tokens on which it is active."""
    max_activation: float
    p999: float
    """99.9th percentile of its positive activations: the unit of steering strength."""
    omega: float | None = None
    """Cross-modal weight `paired`."""
    omega_baseline: float | None = None
    omega_centred: float | None = None
    omega_without_self: float | None = None
    lift: float | None = None
    lift_low: float | None = None
    lift_high: float | None = None
    lift_without_self: float | None = None
    p_value: float | None = None
    modality_share: float | None = None
    """Firing rate per image token over the sum of that and its rate per text token."""
    same_sample_rate: float | None = None
    n_samples: int
    """Samples in which any token activates it."""


class Histogram(Model):
    """Counts between edges; len(edges) = len(counts) + 1."""

    edges: list[float]
    counts: list[int]


class Band(Model):
    """An octave of activation: band 0 holds the feature's highest, 3 everything below the top three."""

    band: int
    low: float
    high: float
    count: int


class TokenLogit(Model):
    token: str
    logit: float

    @model_validator(mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        """Stores keep `[token, logit]`."""
        return {"token": value[0], "logit": value[1]} if isinstance(value, list | tuple) else value


class Logits(Model):
    """Logit lens: the direction through the final norm's weight and the unembedding."""

    promoted: list[TokenLogit]
    suppressed: list[TokenLogit]


class Neighbour(FeatureRef):
    verdict: Verdict | None = None
    cosine: float


class Neighbours(Model):
    decoder: list[Neighbour]
    """Nearest decoder directions."""
    profile: list[Neighbour]
    """Similar features: nearest modality-centred means of their top residuals."""


class Partner(FeatureRef):
    """A feature that shares samples with this one."""

    verdict: Verdict | None = None
    modality: Modality
    """Of the partner."""
    support: int
    lift: float
    npmi: float
    lift_shuffled: float | None = None
    """The lift under one seeded derangement of the captions."""


class Cooccurring(Model):
    text_to_image: list[Partner]
    """This feature on text with the partner on the image."""
    image_to_text: list[Partner]
    """This feature on the image with the partner on text."""
    same: list[Partner]
    """Both on the same modality, named by `modality`."""


class FeatureDetail(Feature):
    """Everything known of one feature but its examples."""

    n_text: int
    """Text tokens that activate it."""
    n_image: int
    samples_text: int
    """Samples with such a text token."""
    samples_image: int
    max_text: float
    max_image: float
    histogram: Modal[Histogram]
    bands: Modal[list[Band]]
    logits: Logits
    neighbours: Neighbours
    cooccurring: Cooccurring


class Patch(Model):
    """One image token."""

    view: int
    row: int
    col: int
    box: list[float]
    """x0, y0, x1, y1 in pixels of the original image."""
    image: int = 0
    """Which image of the sample."""


class View(Model):
    """A grid of patches over a box of an image."""

    rows: int
    cols: int
    box: list[float]
    """x0, y0, x1, y1 in pixels of the original image."""
    image: int = 0


class Grid(View):
    view: int
    values: list[list[float]]
    """Activation per patch: rows of columns, 0 where inactive."""


class TokenActivation(Model):
    text: str
    position: int
    activation: float


class ImageRef(Model):
    """An image of a sample."""

    url: str
    width: int
    height: int


class Example(Model):
    """A place where the feature fires, with the same sample's other side."""

    sample_id: str
    text: str
    images: list[ImageRef]
    modality: Modality
    band: int
    """-1: the overall top list; 0–3: bands."""
    rank: int
    activation: float
    position: int
    """Place in the sample's token list."""
    token: str | None = None
    """Set for text."""
    patch: Patch | None = None
    """Set for image."""
    tokens: list[TokenActivation]
    """The window of text tokens around a text token; for a patch the text's first tokens."""
    grid: Grid | None = None
    """The patch's view; for a text token the first view of the sample."""


class SampleFeature(FeatureRef):
    verdict: Verdict | None = None
    activation: float
    share: float
    """Of its largest activation in that modality over the whole store."""


class FlagReason(Model):
    text: str
    features: list[FeatureRef] = Field(default_factory=list)
    tokens: list[str] = Field(default_factory=list)


class FlagHit(Model):
    """A flag raised on a sample."""

    name: str
    title: str
    score: float
    threshold: float
    reason: FlagReason | None = None


class Sample(Model):
    """A row of the sample list."""

    sample_id: str
    row: int
    text: str
    images: list[ImageRef]
    n_text: int
    n_image: int
    scores: dict[ScoreName, float | None]
    flags: list[str]
    """Names of the flags at or over their threshold."""


class SampleDetail(Model):
    """One pair with its scores, flags and strongest features."""

    sample_id: str
    row: int
    text: str
    images: list[ImageRef]
    views: list[View]
    n_text: int
    n_image: int
    n_special: int
    n_sink: int
    fvu_text: float | None = None
    fvu_image: float | None = None
    extra: dict[str, Any]
    """The row's other fields in the data."""
    scores: dict[ScoreName, float | None]
    score_ranks: dict[ScoreName, float | None]
    """Share of the store's samples with a lower score."""
    flags: list[FlagHit]
    flag_scores: dict[str, float | None]
    near_sample_id: str | None = None
    """The sample most like it."""
    near_cosine: float | None = None
    top_features: Modal[list[SampleFeature]]
    previous: str | None = None
    """`sample_id` of the row before."""
    next: str | None = None
    """`sample_id` of the row after."""


class TokenValues(Model):
    text: str
    modality: Literal["text", "image", "special", "sink"]
    position: int
    values: list[float | None]
    """One per asked feature, in the order asked; null on special tokens and sinks."""


class GridValues(View):
    view: int
    values: list[list[list[float | None]]]
    """Per asked feature: rows of columns; null where the patch is a sink."""


class FeatureScale(FeatureRef):
    max_text: float
    max_image: float
    p999: float


class Activations(Model):
    sample_id: str
    features: list[FeatureScale]
    tokens: list[TokenValues]
    grids: list[GridValues]


class FeaturesHere(Model):
    """The features active at one token or patch, strongest share first."""

    sample_id: str
    position: int
    modality: Literal["text", "image", "special", "sink"]
    token: str
    patch: Patch | None = None
    items: list[SampleFeature]
    total: int
    next: str | None = None


class FloatHistogram(Model):
    """Counts between edges; len(edges) = len(counts) + 1."""

    edges: list[float]
    counts: list[int]


class Auroc(Model):
    """How well a score tells pairs with a swapped caption from the data's own."""

    value: float
    low: float | None = None
    high: float | None = None


class Score(Model):
    name: ScoreName
    description: str
    mean: float | None = None
    std: float | None = None
    histogram: FloatHistogram
    length_rho: float | None = None
    """Spearman's rank correlation with the sample's length in tokens."""
    auroc: Auroc | None = None


class Flag(Model):
    name: str
    title: str
    description: str
    source: Literal["pixels", "model", "text"]
    unit: str | None = None
    threshold: float
    """Flagged above it: a higher flag score is worse."""
    count: int
    histogram: FloatHistogram
    auroc: Auroc | None = None


class CooccurrencePair(Model):
    """Two features that share samples."""

    kind: Literal["text-image", "text-text", "image-image"]
    a: FeatureRef
    """For `text-image` the one on text."""
    b: FeatureRef
    support: int
    n_a: int
    n_b: int
    lift: float
    npmi: float
    lift_shuffled: float | None = None


class WordFeature(FeatureRef):
    verdict: Verdict
    omega: float | None = None
    lift: float | None = None
    n_samples: int
    promoted: list[str]
    """Its promoted tokens."""


class WordSearch(Model):
    """Hits of a search by words."""

    q: str
    features: list[WordFeature]
    samples: list[Sample]


class FeatureHit(FeatureRef):
    """A feature of the query, ranked by strength × log(N / n)."""

    verdict: Verdict
    score: float
    """With both modalities asked, the smaller of the two."""
    strength_text: float | None = None
    """Largest activation on the query's text over p99.9."""
    strength_image: float | None = None
    score_text: float | None = None
    score_image: float | None = None
    density_text: float
    density_image: float
    grids: list[Grid] | None = None
    """Where it fires on the query's image."""


class SampleHit(Model):
    sample_id: str
    text: str
    images: list[ImageRef]
    modality: Modality
    """Which side of the query and of the sample was compared."""
    cosine: float


class LiveSearch(Model):
    """A picture, words or both, seen by the model."""

    features: list[FeatureHit]
    dense: list[FeatureHit]
    """Features denser than 10 % in either modality, set apart."""
    n_dense: int
    samples: list[SampleHit]
    tokens: list[str]
    views: list[View]


class ScoredPair(Model):
    """All scores and flags of a pair that is not in the store."""

    scores: dict[ScoreName, float | None]
    score_ranks: dict[ScoreName, float | None]
    flags: list[FlagHit]
    flag_scores: dict[str, float | None]
    top_features: Modal[list[SampleFeature]]


class PatchAt(NamedTuple):
    view: int
    row: int
    col: int


class SteerFeature(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    id: int = Field(ge=0)
    mode: Literal["set", "add", "ablate"] = "add"
    strength: float = Field(default=1.0, ge=-100, le=100, allow_inf_nan=False)
    """In units of the feature's own 99.9th percentile; `ablate` takes none."""


Scope = Literal["image", "prompt", "generated"]


class SteerRequest(BaseModel):
    """One image and a question; the default and the steered answer side by side."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    sample_id: str | None = None
    """A sample whose first image is used; or give `image`; or neither for words alone."""
    image: str | None = None
    """A picture as base64 or a data: URL."""
    prompt: str = Field(default="", max_length=4000)
    features: list[SteerFeature] = Field(default_factory=list, max_length=32)
    """None: the two texts are the same."""
    scope: list[Scope] = Field(default=["image", "prompt", "generated"], min_length=1)
    mask: list[PatchAt] | None = Field(default=None, max_length=20000)
    """Patches (view, row, col) that scope `image` is narrowed to; null: all."""
    max_tokens: int = Field(default=48, ge=1, le=512)
    temperature: float = Field(default=0.0, ge=0, le=5, allow_inf_nan=False)
    """0 is greedy."""
    seed: int = Field(default=0, ge=0, lt=2**63)


class SteerToken(Model):
    """Event `token`."""

    channel: Literal["default", "steered"]
    text: str
    logprob: float
    """Under the model that wrote it."""
    step: int


class SteerKl(Model):
    """Event `kl`: steered against unsteered model on the steered prefix, in nats."""

    step: int
    kl: float
    logprob_default: float
    """What the unsteered model gives the steered token."""


class SteerDone(Model):
    """Event `done`."""

    text: dict[Literal["default", "steered"], str]
    mean_kl: float | None = None
    delta_ratio: float
    """Largest ‖Δ‖/‖h‖ over the steered tokens, before the cap."""
    delta_ratio_mean: float
    warning: str | None = None
    capped: bool
    """Δ was scaled down to ‖h‖ on some token."""
    n_steered: int
    """Tokens on which Δ was added."""
    seconds: float


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
    live: LiveStatus

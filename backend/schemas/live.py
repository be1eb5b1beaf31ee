"""Search, scoring and steering."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from backend.schemas.common import Grid, ImageRef, Modal, Modality, Model, ScoreName, Verdict, View
from backend.schemas.features import FeatureRef
from backend.schemas.samples import FlagHit, Sample, SampleFeature


class WordFeature(FeatureRef):
    """A feature that a search by words has matched."""

    verdict: Verdict
    omega: float | None = None
    lift: float | None = None
    n_samples: int
    promoted: list[str]
    """Tokens that its logit lens promotes."""


class WordSearch(Model):
    """Results of a search by words."""

    q: str
    features: list[WordFeature]
    samples: list[Sample]


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
    density_text: float
    density_image: float
    grids: list[Grid] | None = None
    """Activations on the query's image; null if not available."""


class SampleHit(Model):
    """A sample near the query."""

    sample_id: str
    text: str
    images: list[ImageRef]
    modality: Modality
    """The modality of query and sample that was compared."""
    cosine: float


class LiveSearch(Model):
    """Results of a search by an image, words or both."""

    features: list[FeatureHit]
    dense: list[FeatureHit]
    """Features with a density over 10 % in either modality, listed separately."""
    n_dense: int
    samples: list[SampleHit]
    tokens: list[str]
    views: list[View]


class ScoredPair(Model):
    """Scores and flags of a pair that is not in the store."""

    scores: dict[ScoreName, float | None]
    score_ranks: dict[ScoreName, float | None]
    flags: list[FlagHit]
    flag_scores: dict[str, float | None]
    top_features: Modal[list[SampleFeature]]


class PatchAt(NamedTuple):
    """A patch: view, row and column, from 0."""

    view: int
    row: int
    col: int


class SteerFeature(BaseModel):
    """A feature to change, and how."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    id: int = Field(ge=0)
    mode: Literal["set", "add", "ablate"] = "add"
    strength: float = Field(default=1.0, ge=-100, le=100, allow_inf_nan=False)
    """In units of the feature's own 99.9th percentile; ignored by `ablate`."""


Scope = Literal["image", "prompt", "generated"]


class SteerRequest(BaseModel):
    """An image, a prompt, and the features to change."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    sample_id: str | None = Field(default=None, min_length=1)  # a bare `str` lets half a character through
    """A sample whose image the model reads; or give `image`; or neither, for a prompt without an image."""
    image: str | None = None
    """An image as base64 or a data: URL."""
    prompt: str = Field(default="", max_length=4000)
    features: list[SteerFeature] = Field(default_factory=list, max_length=32)
    """If empty, both texts are the same."""
    scope: list[Scope] = Field(default=["image", "prompt", "generated"], min_length=1)
    mask: list[PatchAt] | None = Field(default=None, max_length=20000)
    """Patches (view, row, col) to which scope `image` is limited; null: all patches."""
    max_tokens: int = Field(default=48, ge=1, le=512)
    temperature: float = Field(default=0.0, ge=0, le=5, allow_inf_nan=False)
    """0 is greedy decoding."""
    seed: int = Field(default=0, ge=0, lt=2**63)


class SteerToken(Model):
    """Data of the event `token`."""

    channel: Literal["default", "steered"]
    text: str
    logprob: float
    """Log-probability under the model that wrote it."""
    step: int


class SteerKl(Model):
    """Data of the event `kl`: KL divergence of the steered from the unsteered model on the steered prefix, in nats."""

    step: int
    kl: float
    logprob_default: float
    """Log-probability of the steered token under the unsteered model."""


class SteerDone(Model):
    """Data of the event `done`."""

    text: dict[Literal["default", "steered"], str]
    mean_kl: float | None = None
    delta_ratio: float
    """Largest ‖Δ‖/‖h‖ over the steered tokens, before the cap."""
    delta_ratio_mean: float
    warning: str | None = None
    capped: bool
    """Whether Δ was scaled down to ‖h‖ on at least one token."""
    n_steered: int
    """Number of tokens to which Δ was added."""
    seconds: float

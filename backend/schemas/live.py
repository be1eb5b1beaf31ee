"""Search, scoring and steering."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from backend.schemas.common import Grid, ImageRef, Modal, Modality, Model, ScoreName, Verdict, View
from backend.schemas.features import FeatureRef
from backend.schemas.samples import FlagHit, Sample, SampleFeature


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

    sample_id: str | None = Field(default=None, min_length=1)  # a bare `str` lets half a character through
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

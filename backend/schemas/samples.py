"""Samples, their scores and flags."""

from typing import Any, Literal

from pydantic import Field

from backend.schemas.common import (
    Auroc,
    Histogram,
    ImageRef,
    Modal,
    Model,
    Patch,
    ScoreName,
    Verdict,
    View,
    WrittenAbout,
)
from backend.schemas.features import FeatureRef


class SampleFeature(FeatureRef):
    """A feature with its activation in a sample."""

    verdict: Verdict | None = None
    activation: float
    share: float
    """Activation ÷ the feature's 99.9th percentile over both modalities: one unit for text and images."""


class SampleFamily(FeatureRef):
    """Features of one family or name in a sample, by the best of them there."""

    verdict: Verdict | None = None
    activation_text: float | None = None
    """Of the strongest of them on the sample's text; null below a tenth of its 99.9th percentile."""
    activation_image: float | None = None
    share_text: float | None = None
    """Activation ÷ that feature's 99.9th percentile over both modalities."""
    share_image: float | None = None
    n_alike: int
    """Further ones that are on in the sample."""
    members: list[int]
    """Numbers of all that are on in the sample."""


class SampleGroups(Model):
    """The families that are on in a sample, by where; best first."""

    both: list[SampleFamily]
    image_only: list[SampleFamily]
    text_only: list[SampleFamily]


class FlagReason(Model):
    """Why a flag was raised: a sentence, and the features and tokens in it."""

    text: str
    features: list[FeatureRef] = Field(default_factory=list)
    tokens: list[str] = Field(default_factory=list)


class FlagHit(Model):
    """A flag of a sample, with its score and the reason."""

    name: str
    title: str
    score: float
    threshold: float
    reason: FlagReason | None = None


class SampleRow(WrittenAbout):
    """One pair of the data."""

    sample_id: str
    row: int
    text: str
    images: list[ImageRef]
    n_text: int
    n_image: int


class Sample(SampleRow):
    """A row of the sample list."""

    scores: dict[ScoreName, float | None]
    flags: list[str]
    """Names of the flags at or above their threshold."""


class ScoredPair(Model):
    """Scores and flags of a pair, of the store or not."""

    scores: dict[ScoreName, float | None]
    score_ranks: dict[ScoreName, float | None]
    """Share of the store's samples with a lower score, by score."""
    flags: list[FlagHit]
    flag_scores: dict[str, float | None]
    top_features: Modal[list[SampleFeature]]
    """Strongest first: share, at most 1, × log(N / n)."""


class PairDetail(ScoredPair):
    """What fires in a pair, of the store or not."""

    views: list[View]
    n_special: int
    n_sink: int
    fvu_text: float | None = None
    """Fraction of the store's variance that the SAE leaves unexplained on the text."""
    fvu_image: float | None = None
    groups: SampleGroups


class SampleDetail(PairDetail, SampleRow):
    """One pair with its scores, flags and strongest features."""

    extra: dict[str, Any]
    """Other fields of the row in the data."""
    near_sample_id: str | None = None
    """The most similar sample."""
    near_cosine: float | None = None
    previous: str | None = None
    """`sample_id` of the previous row."""
    next: str | None = None
    """`sample_id` of the next row."""


class TokenValues(Model):
    """A token and its activations."""

    text: str
    modality: Literal["text", "image", "special", "sink"]
    position: int
    values: list[float | None]
    """One activation per requested feature, in the order of the request; null on special tokens and sinks."""


class GridValues(View):
    """A grid of patches and their activations."""

    view: int
    values: list[list[list[float | None]]]
    """Per requested feature: rows of columns; null if the patch is a sink."""


class FeatureScale(FeatureRef):
    """A feature with the largest activations of the whole store."""

    max_text: float
    max_image: float
    p999: float


class PairActivations(Model):
    """Activations of features on every token and patch of a pair."""

    features: list[FeatureScale]
    tokens: list[TokenValues]
    grids: list[GridValues]


class Activations(PairActivations):
    """Activations of features on every token and patch of a sample."""

    sample_id: str
    recomputed: bool = False
    """Whether the live model computed these activations, because the store does not hold them."""


class PairFeaturesHere(Model):
    """The features active at one token or patch of a pair, in the order of `top_features`."""

    position: int
    modality: Literal["text", "image", "special", "sink"]
    token: str
    patch: Patch | None = None
    items: list[SampleFeature]
    total: int
    next: str | None = None


class FeaturesHere(PairFeaturesHere):
    """The features active at one token or patch of a sample, in the order of `top_features`."""

    sample_id: str
    recomputed: bool = False
    """Whether the live model computed these activations, because the store does not hold them."""


class ScorePart(FeatureRef):
    """What a feature does to a score of a sample."""

    verdict: Verdict | None = None
    part: float
    """Its part of the score: the parts of all features add up to it."""
    effect: float
    """The score minus the score without the feature: above 0 where it raises the score."""
    activation_text: float | None = None
    """Largest on the sample's text; null where it is not active."""
    activation_image: float | None = None


class PairWhy(Model):
    """The features that raise a score of a pair and those that lower it, each with most effect first."""

    score: ScoreName
    value: float | None
    is_sum: bool
    """Whether the score is a sum over features, so that `effect` is `part`; otherwise a mean or a ratio."""
    n_features: int
    """Features active in the sample."""
    n_raising: int
    n_lowering: int
    raising: list[ScorePart]
    lowering: list[ScorePart]


class WhyScore(PairWhy):
    """The features that raise a stored score of a sample and those that lower it, each with most effect first."""

    sample_id: str
    recomputed: bool = False
    """Whether the live model computed the activations, because the store does not hold them."""


class NearSample(Model):
    """A sample near another one."""

    sample_id: str
    row: int
    text: str
    images: list[ImageRef]
    cosine: float
    """Of the two sample vectors of that modality."""
    flags: list[str]
    caption_fit: float | None = None
    """Cosine of its caption's features and the image of the sample that was asked for; null without either."""
    shared: list[SampleFeature]
    """Features of both samples, those that weigh most in both first, with the activation here."""


class NearSamples(Model):
    """The samples whose vector of one modality is nearest to that of a sample."""

    sample_id: str
    modality: Literal["text", "image"]
    own_fit: float | None = None
    """As `caption_fit`, of the sample's own caption."""
    items: list[NearSample]


class Score(Model):
    """A score with its distribution over the store."""

    name: ScoreName
    description: str
    mean: float | None = None
    std: float | None = None
    histogram: Histogram
    length_rho: float | None = None
    """Spearman's rank correlation with the sample's length in tokens."""
    auroc: Auroc | None = None


class Flag(Model):
    """A flag with its threshold and the distribution of its score."""

    name: str
    title: str
    description: str
    source: Literal["pixels", "model", "text"]
    unit: str | None = None
    threshold: float
    """Samples above it are flagged: a higher flag score is worse."""
    count: int
    histogram: Histogram
    auroc: Auroc | None = None

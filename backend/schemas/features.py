"""Features, where they fire, and with whom."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from backend.schemas.common import Grid, Histogram, ImageRef, Modal, Modality, Model, Patch, Verdict


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


class TokenActivation(Model):
    text: str
    position: int
    activation: float | None = None
    """Null where the store keeps no activations of the sample and none were computed anew."""


class Example(Model):
    """A sample in which the feature fires, by its strongest token there, with the same sample's other side."""

    sample_id: str
    text: str
    images: list[ImageRef]
    modality: Modality
    band: int
    """-1: the strongest of all; 0–3: bands."""
    rank: int
    activation: float
    """Of the token at `position`: the sample's strongest of this modality, in a band its strongest there."""
    n_active: int
    """Tokens of this sample that activate the feature in this modality."""
    n_same: int
    """Further samples of the list that show the same and are therefore not listed: on text the same words around the
    token, or a near-duplicate with the same caption; on images the same file or a near-duplicate."""
    position: int
    """Place in the sample's token list."""
    token: str | None = None
    """Set for text."""
    patch: Patch | None = None
    """Set for image."""
    tokens: list[TokenActivation]
    """The window of text tokens around a text token; for a patch the text's first tokens."""
    grid: Grid | None = None
    """The patch's view; for a text token the first view of the sample. Null without a picture, and where the store
    keeps no activations of the sample and none were computed anew."""
    recomputed: bool = False
    """Whether the live model computed the window anew: the store keeps no activations of the sample."""


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

"""Features, where they fire, and which features share their samples."""

from typing import Any, Literal

from pydantic import model_validator

from backend.schemas.common import Grid, Histogram, ImageRef, Modal, Modality, Model, Page, Patch, Verdict, WrittenAbout


class FeatureRef(Model):
    """A feature, by number and label."""

    id: int
    label: str | None = None
    label_score: float | None = None
    """Balanced accuracy of "the caption has a word of the label" for "the sample has the feature", on samples that gave
    no evidence for the label; .5 is chance. Pages show `description` first where it is below .6."""
    description: str | None = None
    """The evidence in words: place, commonest words of its tokens and of the captions of its images."""


class Feature(FeatureRef, WrittenAbout):
    """A row of the feature list. A figure is null if it could not be computed; the verdict says why."""

    verdict: Verdict
    density_text: float
    """Share of text tokens that activate it."""
    density_image: float
    """Share of image tokens that activate it."""
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
    """density_image / (density_image + density_text): 0 is text only, 1 is image only."""
    same_sample_rate: float | None = None
    n_samples: int
    """Number of samples in which any token activates it."""
    pair_lift: float | None = None
    """Samples that have it on both sides, over their number if captions of one length were exchanged."""
    pair_lift_low: float | None = None
    pair_lift_high: float | None = None
    pair_p: float | None = None
    """Exact probability of so many under such an exchange, or of more."""
    pair_lift_alone: float | None = None
    """As pair_lift, with the text run without its image."""
    pair_p_alone: float | None = None
    n_both: int | None = None
    """Samples with both sides above δ."""
    agreement: float | None = None
    """Share of its strongest images whose caption has one of its top words, beyond that word's base rate."""
    agreement_low: float | None = None
    agreement_high: float | None = None
    place: str | None = None
    """"patch R,C", "row R" or "column C", from 0, if most of its image activation lies there."""
    place_share: float | None = None
    """Share of its image activation in the patch place, row or column that has most of it."""
    family: int | None = None
    """Features that say nearly the same have one family, whose number is that of its strongest member; null for a
    feature alone."""
    n_members: int = 1
    """Features in its family, itself counted."""
    mean_cosine: float | None = None
    """Cosine of its direction with the mean direction of all features."""
    evidence: float | None = None
    """agreement_low × label_score: the order of the lists of pages."""
    hallucination: float | None = None
    """P(active | right answer) − P(active | hallucinated), on the last token of yes/no questions about objects; null
    where it was active on none, or nothing was measured."""


class PlaceMap(Model):
    """Mean activation of a feature by place in the image."""

    rows: int
    columns: int
    mean: list[float]
    """Row by row."""


class Band(Model):
    """An octave of activation: band 0 holds the highest activations, 3 everything below the top three octaves."""

    band: int
    low: float
    high: float
    count: int


class TokenLogit(Model):
    """A token and its logit."""

    token: str
    logit: float

    @model_validator(mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        """Stores hold `[token, logit]`."""
        return {"token": value[0], "logit": value[1]} if isinstance(value, list | tuple) else value


class LensSides(Model):
    """The tokens whose logits a decoder direction raises and lowers most."""

    promoted: list[TokenLogit]
    suppressed: list[TokenLogit]


class Logits(LensSides):
    """Logit lens: the decoder direction through the weight of the final norm and the unembedding. `promoted` and
    `suppressed` are the centred ones."""

    centred: LensSides
    """Each token's logit minus its mean over all features, in units of its standard deviation over them."""
    raw: LensSides
    """The logits themselves, minus their mean over the vocabulary."""
    informative: bool
    """Whether the largest centred value is beyond what chance gives among as many tokens; if not, the lens says nothing
    of this feature."""


class Neighbour(FeatureRef):
    """A similar feature."""

    verdict: Verdict | None = None
    cosine: float
    near_copy: bool = False
    """Whether it is in the same family."""


class Neighbours(Model):
    """Similar features, by two measures."""

    decoder: list[Neighbour]
    """Nearest decoder directions, after the mean direction is taken off."""
    profile: list[Neighbour]
    """Features that fire on similar tokens: nearest modality-centred means of their strongest residual vectors."""


Kind = Literal["text-image", "text-text", "image-image"]


class Measures(Model):
    """How much more often than by chance two features fire in the same samples."""

    support: int
    """Number of samples in which both fire."""
    lift: float
    lift_low: float
    """95 % interval of the lift, by the exact Poisson interval of `support`."""
    lift_high: float
    npmi: float
    lift_shuffled: float | None = None
    """The lift after one seeded derangement of the captions."""


class Partner(Measures, FeatureRef):
    """A feature that shares samples with this one."""

    verdict: Verdict | None = None
    modality: Modality
    """Modality on which the partner fires."""


class Cooccurring(Model):
    """Features that fire in the same samples, strongest first."""

    text_to_image: list[Partner]
    """This feature on text, the partner on the image."""
    image_to_text: list[Partner]
    """This feature on the image, the partner on text."""
    same: list[Partner]
    """Both on the same modality, which `modality` names."""


class TopWord(Model):
    """The word that most of a feature's strongest samples share."""

    word: str
    n: int
    """Samples that have it."""
    of: int
    """Strongest samples looked at."""


class FeatureDetail(Feature):
    """One feature with all its figures; its examples have their own endpoint."""

    words: Modal[TopWord | None]
    """Text: the word of which most of its strongest tokens are part. Image: the word most frequent in the captions of
    its strongest images, beyond its base rate. Null where no word stands out."""

    n_text: int
    """Number of text tokens that activate it."""
    n_image: int
    """Number of image tokens that activate it."""
    samples_text: int
    """Number of samples with such a text token."""
    samples_image: int
    """Number of samples with such an image token."""
    max_text: float
    max_image: float
    histogram: Modal[Histogram]
    bands: Modal[list[Band]]
    logits: Logits
    place_map: PlaceMap | None = None
    neighbours: Neighbours
    cooccurring: Cooccurring


class Family(Model):
    """Features that are near-copies of one another, numbered and named by the strongest of them."""

    id: int
    name: str | None = None
    n_members: int
    evidence: float | None = None
    """Of its strongest member."""


class FamilyDetail(Family):
    """One family, its strongest member first."""

    members: list[Feature]


class FeatureVector(Model):
    """The decoder direction of a feature, from the store; its components carry the rounding of float16."""

    id: int
    length: float
    """Length of `raw`."""
    mean_cosine: float | None = None
    """Cosine of `raw` with the mean direction."""
    raw: list[float]
    """What the feature adds to the residual stream per unit of activation."""
    centred: list[float]
    """The same at length 1, minus the mean direction of all features, scaled to length 1."""


class TokenActivation(Model):
    """A token and the activation of a feature on it."""

    text: str
    position: int
    activation: float | None = None
    """Null if the store has no activations of the sample and the live model did not compute them."""


class Example(Model):
    """A sample in which the feature fires: its strongest token there, and the other modality of the same sample."""

    sample_id: str
    text: str
    images: list[ImageRef]
    modality: Modality
    band: int | None = None
    """-1: the strongest examples; 0–3: bands."""
    rank: int | None = None
    counter: Literal["off", "unnamed"] | None = None
    """Of counter-examples: the caption has a word of the label and the feature is off, or the reverse."""
    activation: float
    """Of the token at `position`: the strongest of the sample in this modality and, if one is asked for, band."""
    n_active: int
    """Number of tokens of this sample and modality that activate the feature."""
    n_same: int
    """Number of further samples that are folded into this one because they show the same: on text the same words around
    the token, or a near-duplicate image with the same caption; on images the same file or a near-duplicate."""
    position: int | None = None
    """Place in the sample's token list, from 0; null where the feature is off."""
    token: str | None = None
    """For text examples."""
    patch: Patch | None = None
    """For image examples."""
    tokens: list[TokenActivation]
    """The text tokens around a text token; for a patch, the first tokens of the text."""
    grid: Grid | None = None
    """The view with the patch; for a text token, the first view of the sample. Null if the sample has no image, or if
    the store has no activations of the sample and the live model did not compute them."""
    recomputed: bool = False
    """Whether the live model computed these activations, because the store does not hold them."""


class CooccurrencePair(Measures):
    """Two features that fire in the same samples."""

    kind: Kind
    a: FeatureRef
    """For `text-image`, the feature on text."""
    b: FeatureRef
    n_a: int
    """Number of samples in which `a` fires."""
    n_b: int
    family_a: int
    """Family of `a`: the number of its strongest feature; a feature without family is one of its own."""
    family_b: int
    n_alike: int
    """Further pairs of these two families or names, which are not listed."""


class HiddenPairs(Model):
    """Pairs that the filters leave out, by reason."""

    weak: int
    """Lift below `min_lift`."""
    same_concept: int
    """Both are the same feature, or of one family or name."""
    alike: int
    """Listed under another pair of the same two families or names."""


class PairPage(Page[CooccurrencePair]):
    """One page of pairs."""

    model_config = Model.model_config
    hidden: HiddenPairs

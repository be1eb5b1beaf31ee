"""The SAE: how well it reconstructs the residual stream, alone and inside its model, and how it was trained."""

from typing import Any, Literal

from pydantic import Field, FiniteFloat

from backend.schemas.common import Histogram, Modal, Model


class Sides(Model):
    """A figure for text tokens, for image tokens, and for both together; null if there are no such tokens."""

    text: FiniteFloat | None = None
    image: FiniteFloat | None = None
    both: FiniteFloat | None = None


class Counts(Model):
    """Numbers of features for text tokens, for image tokens, and for both together."""

    text: int | None = None
    image: int | None = None
    both: int | None = None


class Estimate(Model):
    """A figure with its 95 % bootstrap interval over samples."""

    value: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat


class EvaluatedModel(Model):
    """The model of an evaluation."""

    name: str
    layer: int


class UsedData(Model):
    """The data of an evaluation or a training."""

    name: str
    n_samples: int


class ScorecardFigure(Model):
    """A figure of the scorecard of an SAE."""

    line: str
    """One of twelve."""
    name: str
    """Which figure of that line."""
    better: Literal["higher", "lower"] | None = None
    """Which values are the better ones; null where neither are, or it is not known."""
    value: FiniteFloat | None
    """Null where it could not be computed."""
    interval: tuple[FiniteFloat, FiniteFloat] | None = None
    control_random_decoder: FiniteFloat | None = None
    """The same of an SAE whose decoder was not trained."""
    control_untrained: FiniteFloat | None = None
    """The same of an SAE of a model with random weights."""
    note: str
    """What it is, or why it could not be computed."""
    needs: str | None = None
    """Options of `saevx evaluate` that measure it, where they were not given; null otherwise."""


class SaeEvaluation(Model):
    """Results of `saevx evaluate`."""

    model: EvaluatedModel
    data: UsedData
    options: dict[str, Any] = Field(default_factory=dict)
    cross_entropy: dict[str, Estimate | None]
    """In nats per text token: original, zero and patched; the latter two also for text or image tokens only."""
    loss_recovered: dict[str, Estimate | None]
    """(zero − patched) / (zero − original) for all, text and image."""
    fvu: dict[str, Estimate | None]
    l0: dict[str, Estimate | None]
    dead: dict[str, int]
    tokens: dict[str, int]
    card: list[ScorecardFigure] = Field(default_factory=list)
    """Empty in files of older versions."""


class TrainingLine(Model):
    """A line of the training log: figures since the previous line."""

    step: int
    tokens: int
    loss: FiniteFloat | None = None
    fvu: Sides
    l0: Sides
    dead: Counts


class SaeTraining(Model):
    """The log of `saevx train`."""

    data: UsedData
    options: dict[str, Any] = Field(default_factory=dict)
    log: list[TrainingLine]


class DensityGrid(Model):
    """Features by their density on text and on images, on logarithmic axes."""

    edges: list[float]
    """Between the cells after the first; the first holds the features that never fire there, the last ends at 1."""
    counts: list[list[int]]
    """By text cell and image cell."""


class Spread(Modal[Histogram]):
    """A histogram per modality, with the same edges; empty where the store has no such values."""

    model_config = Model.model_config
    n: int
    """Samples that it rests on: of a large store some, evenly spaced."""


class PlaceMeans(Model):
    """A mean by place of an image token in its view."""

    n: int
    """Samples that it rests on."""
    mean: list[list[FiniteFloat | None]] | None
    """Rows of columns of a grid laid over each view; null where the store cannot tell."""


class SaeReport(Model):
    """The store's SAE."""

    name: str
    sha256: str
    architecture: str
    n_features: int
    n_text_tokens: int
    n_image_tokens: int
    fvu: Sides
    """Fraction of variance unexplained on this store's data: Σ‖h − ĥ‖² / Σ‖h − mean h‖²."""
    l0: Sides
    """Mean number of active features per token."""
    dead: Counts
    """Number of features that are active on no token of this store."""
    verdicts: dict[str, int]
    """Number of features per verdict."""
    density: DensityGrid
    fvu_samples: Spread
    """FVU of single samples."""
    l0_tokens: Spread
    """Active features of single tokens."""
    l0_places: PlaceMeans
    """Active features of image tokens by their place."""
    fvu_places: PlaceMeans
    """FVU of image tokens by their place, against the variance of all image tokens; null in a store of an older
    version, which does not hold it."""
    warning: str | None = None
    """Why this SAE should not be trusted on this data, or on its images; null if there is no reason."""
    evaluation: SaeEvaluation | None = None
    """From evaluation.json in the SAE's folder."""
    training: SaeTraining | None = None
    """From training.json in the SAE's folder."""
    notes: list[str] = Field(default_factory=list)
    """Files in the SAE's folder that are not shown, and why."""

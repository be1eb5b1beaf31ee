"""What was measured on hallucinated answers of a store's model."""

from pydantic import FiniteFloat

from backend.schemas.common import Model
from backend.schemas.features import FeatureRef
from backend.schemas.sae import Estimate


class SteeredFeature(FeatureRef):
    """A feature of those that were steered together."""

    separation: FiniteFloat
    """P(active | right) − P(active | hallucinated) on the images that chose it."""
    separation_reported: FiniteFloat
    """The same on the other images."""


class HallucinationFigures(Model):
    """The content of STORE.hallucination.json, but for the separation of every feature, which is a figure of theirs."""

    questions: dict[str, int]
    """Questions that are reported, by kind: present, random, popular, adversarial."""
    hallucinated_to_choose_on: int
    hallucinated_reported: int
    halves_agree: FiniteFloat | None
    """Spearman correlation of the features' separation on the images that chose with that on the others."""
    strength: float
    features: list[SteeredFeature]
    ways: dict[str, dict[str, Estimate | None]]
    """By way to steer: `accuracy`, `hallucinated`, `missed`, `chair` and others, each with its interval."""
    against_random: dict[str, Estimate | None]
    """`accuracy` and `hallucinated`: steered towards right less the mean of random features, question by question."""


class HallucinationReport(Model):
    """What was measured on hallucinated answers, where it was."""

    hallucination: HallucinationFigures | None
    """Null where it was not."""
    command: str
    """What measures it."""
    note: str | None = None
    """Why a file beside the store is not shown."""

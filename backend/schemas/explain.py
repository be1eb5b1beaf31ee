"""Why the model gave an answer, and the test of that."""

from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict, Field

from backend.schemas.common import Body, Model, View
from backend.schemas.features import FeatureRef
from backend.schemas.steering import PatchAt, Scope, SteerFeature

MAX_TOKENS = 64
WordClass = Literal["removed", "changed", "kept"]
EXAMPLE: dict[str, Any] = {"sample_id": "scene-17", "prompt": "What is in the image?", "max_tokens": 8, "token": 0}


class ExplainRequest(Body):
    """An image, a text or both, a prompt, and a token of the answer that the model writes, greedily."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    sample_id: str | None = Field(default=None, min_length=1)
    """A sample whose image the model reads, or whose text if it has no image; or give `image` or `image_hash`."""
    image: str | None = None
    """An image as base64 or a data: URL."""
    image_hash: str | None = Field(default=None, max_length=64)
    """`hash` of an uploaded image (`POST /images`), instead of `image`."""
    text: str = Field(default="", max_length=4000)
    """Text that the model reads on a line of its own before the prompt."""
    prompt: str = Field(default="", max_length=4000)
    """What the model is asked."""
    max_tokens: int = Field(default=16, ge=1, le=MAX_TOKENS)
    """Tokens of the answer at most."""
    token: int | None = Field(default=None, ge=0)
    """Which token of the answer is explained, from 0; null: the first of the first word that is no function word."""
    features: list[SteerFeature] = Field(default_factory=list, max_length=32)
    """As in `POST /steer`: the answer that is explained is the steered one."""
    scope: list[Scope] = Field(default=["image", "prompt", "generated"], min_length=1)
    """Where `features` are steered."""
    limit: int = Field(default=24, ge=1, le=200)
    """Features of either sign in the reply."""


class ExplainTestRequest(ExplainRequest):
    """The same, and what is taken away: features, patches of the image, or both."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**EXAMPLE, "ablate": [3], "patches": [[0, 2, 3]]}]})

    ablate: list[int] = Field(default_factory=list, max_length=64)
    """Features that are set to 0 on all tokens but special ones and sinks."""
    patches: list[PatchAt] = Field(default_factory=list, max_length=20_000)
    """Patches (view, row, col) that are painted over in the image."""
    fill: Literal["mean", "zero"] = "mean"
    """Their colour: the one that the model's processor takes for the mean, or black."""
    draws: int = Field(default=3, ge=1, le=10)
    """Random removals of as many features and patches."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the random removals."""


class AnswerToken(Model):
    """A token of the answer."""

    text: str
    logprob: float
    """Log-probability, in nats."""
    word: int
    """Number of the word that it belongs to, from 0."""


class Sides(Model):
    """Parts of the log-odds by kind of token, in nats."""

    text: float
    """Of the prompt's own text."""
    image: float
    """Of the image's patches."""
    answer: float
    """Of the answer before the token. It begins with the last position of the prompt where that belongs to the
    template."""


class Parts(Model):
    """The sum of h · gradient over all positions, divided."""

    features: Sides
    error: Sides
    """Of the SAE's error, h − ĥ."""
    bias: Sides
    """Of decode(0), which the SAE adds whatever is active."""
    special: float
    """Of special tokens and attention sinks, which are not divided."""
    total: float
    """Σ h · gradient."""
    gap: float
    """What the parts miss of the total, as a share of their absolute sum: rounding."""


class PatchPart(NamedTuple):
    """A patch, and the part of a feature there."""

    view: int
    row: int
    col: int
    part: float


class TokenPart(NamedTuple):
    """A token's position, and the part of a feature there."""

    position: int
    part: float


class ExplainedFeature(FeatureRef):
    """A feature and its part of the log-odds: Σ over tokens of z · direction · gradient."""

    part: float
    sides: Sides
    patches: list[PatchPart]
    """The 400 patches with the largest parts in absolute value."""
    tokens: list[TokenPart]
    """Those of text, likewise."""


class ReadToken(Model):
    """A token of text that the model has read, or written, before the one that is explained."""

    position: int
    text: str
    side: Literal["text", "answer"]


class Explanation(Model):
    """Which features carried a token of the answer: activation × gradient of its log-odds at layer L."""

    answer: str
    tokens: list[AnswerToken]
    token: int
    """The one that is explained."""
    log_odds: float
    """log p − log (1 − p) of it: its logit less the log-sum-exp of all others."""
    parts: Parts
    raising: list[ExplainedFeature]
    """The largest part first."""
    lowering: list[ExplainedFeature]
    """The most negative part first."""
    n_raising: int
    n_lowering: int
    read: list[ReadToken]
    views: list[View]
    """Grids of patches of the image."""


class WordTest(Model):
    """A word of the answer, and what becomes of it. Changes are of its log-probability given the answer before it, in
    nats."""

    text: str
    logprob: float
    """As the model gave it."""
    change: float
    verdict: WordClass
    """`removed`: its probability falls to a tenth or less; `changed`: it halves, doubles or more; `kept`: neither."""
    random_changes: list[float]
    """Of each random removal."""
    no_image_change: float | None = None
    no_image_verdict: WordClass | None = None


class RandomRemoval(Model):
    """What was taken away instead, at random, and the answer then."""

    features: list[FeatureRef]
    """They fire on this pair too."""
    patches: list[PatchAt]
    answer: str


class ExplanationTest(Model):
    """The answer with features ablated and patches painted over, beside as many random ones and beside no image."""

    before: str
    """The answer as it was."""
    answer: str
    """What the model answers now."""
    words: list[WordTest]
    random: list[RandomRemoval]
    no_image_answer: str | None = None
    """Null where there is no image."""
    removed_below: float
    """Change, in nats, up to which a word counts as removed."""
    changed_from: float
    """Size of a change from which a word counts as changed."""

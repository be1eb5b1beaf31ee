"""Steering: requests, events, and replies."""

from typing import Literal, NamedTuple

from pydantic import Field

from backend.schemas.common import Body, Model


class PatchAt(NamedTuple):
    """A patch: view, row and column, from 0."""

    view: int
    row: int
    col: int


class SteerFeature(Body):
    """A feature to change, and how."""

    id: int = Field(ge=0)
    mode: Literal["set", "add", "ablate"] = "add"
    strength: float = Field(default=1.0, ge=-100, le=100, allow_inf_nan=False)
    """In units of the feature's own 99.9th percentile; ignored by `ablate`."""
    family: bool = False
    """Steer all its family, near-copies of it, up to 32 of them. They share the strength, and `add` changes h as much,
    ‖Δ‖, as the feature alone at this strength."""


class SteerCandidate(Body):
    """One of several edits of the same image and prompt."""

    features: list[SteerFeature] = Field(default_factory=list, max_length=32)
    control: int | None = Field(default=None, ge=0, lt=2**31)
    """As in the request."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Null: the request's."""


Scope = Literal["image", "prompt", "generated"]


class SteerRequest(Body):
    """An image, a prompt, and the features to change."""

    sample_id: str | None = Field(default=None, min_length=1)  # a bare `str` lets half a character through
    """A sample whose image the model reads; or give `image`; or neither, for a prompt without an image."""
    image: str | None = None
    """An image as base64 or a data: URL."""
    image_hash: str | None = Field(default=None, max_length=64)
    """`hash` of an uploaded image (`POST /images`), instead of `image`."""
    prompt: str = Field(default="", max_length=4000)
    features: list[SteerFeature] = Field(default_factory=list, max_length=32)
    """If empty, both texts are the same."""
    scope: list[Scope] = Field(default=["image", "prompt", "generated"], min_length=1)
    mask: list[PatchAt] | None = Field(default=None, max_length=20000)
    """Patches (view, row, col) to which scope `image` is limited; null: all patches."""
    attention: Literal["free", "frozen"] = "free"
    """Frozen: above the hook layer the attention patterns are those of the unchanged model on the same text, and only
    the values that they move can change; 422 where the model cannot do that."""
    control: int | None = Field(default=None, ge=0, lt=2**31)
    """Change h as much on every token, but along a random feature: the number draws it. `done` names it."""
    target: str | None = Field(default=None, min_length=1, max_length=60)
    """A word: the event `target` says how likely the answer begins with it, by its first token."""
    candidates: list[SteerCandidate] | None = Field(default=None, min_length=1, max_length=100)
    """Several edits at once, at most 8, instead of `features`: the reply is one object, not a stream."""
    alternatives: int = Field(default=0, ge=0, le=10)
    """How many of the likeliest tokens of both models each `token` has; not with `candidates`."""
    max_tokens: int = Field(default=48, ge=1, le=512)
    """At most 64 with `candidates`."""
    temperature: float = Field(default=0.0, ge=0, le=5, allow_inf_nan=False)
    """0 is greedy decoding."""
    seed: int = Field(default=0, ge=0, lt=2**63)


class SteerStart(Model):
    """With what steering a feature begins."""

    strength: float
    """85 % of the cap; 70 % in a store without images."""
    cap: float | None
    """Strength in units of p99.9 at which ‖Δ‖ reaches the median ‖h‖; null if unknown."""
    scope: list[Scope]
    """Where: image and prompt; prompt and generated text in a store without images."""
    sample_id: str | None
    """A sample with an image in which the feature is off."""


Channel = Literal["default", "steered"]


class SteerWaiting(Model):
    """Data of the event `waiting`, while other requests use the model."""

    before: int
    """Requests that come before this one."""


class SteerLikely(Model):
    """A token that a model may write next."""

    text: str
    logprob: float
    """In nats."""


class SteerToken(Model):
    """Data of the event `token`."""

    channel: Channel
    """Whose answer it belongs to."""
    text: str
    """What it adds to the answer; empty while a character is incomplete, and for the end."""
    logprob: float
    """Log-probability under the model that wrote it."""
    step: int
    """Its place in the answer, from 0."""
    other_logprob: float | None = None
    """Under the other model on the same prefix, where `alternatives` were asked for."""
    alternatives: dict[Channel, list[SteerLikely]] | None = None
    """The likeliest tokens of the unchanged (`default`) and of the steered model on this prefix, first ones first."""


class SteerKl(Model):
    """Data of the event `kl`: KL divergence of the steered from the unsteered model on the steered prefix, in nats."""

    step: int
    """Place in the steered answer, from 0."""
    kl: float
    """In nats, of the next token."""
    logprob_default: float
    """Log-probability of the steered token under the unsteered model."""


class SteerTarget(Model):
    """Data of the event `target`: how likely the answer begins with the target."""

    p_default: float
    """Probability under the unchanged model."""
    p_steered: float
    """Under the steered model."""


class SteerDone(Model):
    """Data of the event `done`."""

    control: int | None = None
    """The random feature along which h was changed, where `control` was asked for."""

    text: dict[Channel, str]
    """Both answers."""
    mean_kl: float | None = None
    """Mean KL per step of the steered answer, in nats; null without a step."""
    delta_ratio: float
    """Largest ‖Δ‖/‖h‖ over the steered tokens, before the cap."""
    delta_ratio_mean: float
    """Mean of the same."""
    warning: str | None = None
    """A sentence where the change is large."""
    capped: bool
    """Whether Δ was scaled down to ‖h‖ on at least one token."""
    n_steered: int
    """Number of tokens to which Δ was added."""
    seconds: float
    """Time that the model needed; of several candidates, for all together."""


class SteerRun(SteerDone):
    """What became of a candidate: all that the events of a run of its own would tell."""

    tokens: dict[Channel, list[SteerToken]]
    """Of both answers."""
    kl: list[SteerKl]
    """Of each step of the steered answer."""
    target: SteerTarget | None = None
    """Where a target was asked for."""


class SteerRuns(Model):
    """Reply to `candidates`."""

    runs: list[SteerRun]
    """In the order of the request."""

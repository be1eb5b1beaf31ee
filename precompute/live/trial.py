"""Is an attribution right? The answer again with features ablated and patches painted over, beside as many random ones
and beside the prompt without its image (METHOD, *Why this answer*)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, Self

import numpy as np

from precompute.geometry.painting import paint, regions, visible_pixels
from precompute.live.answers import Change, Step, ablation, answer_log_odds, apply_change, logprob_of, write_answer
from precompute.live.attribution import Attribution, attribute
from precompute.live.intervention import Intervention, Scope
from precompute.model.batch import Batch, Pair
from precompute.model.mllm import Mllm
from precompute.model.processor import mean_colour
from precompute.sae.encode import Scale
from precompute.sae.sae import SaeV
from precompute.utils.types import Array

Fill = Literal["mean", "zero"]
REMOVED, CHANGED = math.log(10), math.log(2)
"""Falls of a word's log-probability, in nats, from which it counts as removed, and changes from which as changed."""
WordClass = Literal["removed", "changed", "kept"]


def word_class(change: float) -> WordClass:
    """Of the change of a word's log-probability, in nats."""
    return "removed" if change <= -REMOVED else "changed" if abs(change) >= CHANGED else "kept"


@dataclass(frozen=True)
class Prompt:
    """What the model reads, and how h is changed meanwhile."""

    mllm: Mllm
    sae: SaeV
    scale: Scale
    pair: Pair
    """The prompt, and the image if there is one."""
    steered: Sequence[Intervention] = ()
    """As in a steered run; on top of it features are ablated."""
    scope: Sequence[Scope] = ("image", "prompt", "generated")

    @cached_property
    def batch(self) -> Batch:
        """The prompt, ready for an answer. Raises SaevxError as `Mllm.prepare`."""
        return self.mllm.prepare([self.pair], generate=True)

    def change(self, features: Sequence[int] = ()) -> Change | None:
        """The steering, then the ablation of `features`; None where there is neither. Raises SaevxError as `Steer`."""
        steps = [Step.of(self.sae, self.batch, self.steered, self.scope)] if self.steered else []
        steps += ablation(self.sae, self.batch, features)
        return Change(steps, self.batch, self.scale.sink_norm) if steps else None

    def log_odds(self, ids: Sequence[int], features: Sequence[int] = ()) -> Array:
        """float64 [n]: of each token of an answer with `features` ablated, in nats."""
        with apply_change(self.mllm, self.change(features)):
            return answer_log_odds(self.mllm, self.batch, ids)

    def logprobs(self, ids: Sequence[int], features: Sequence[int] = ()) -> Array:
        """float64 [n]: log-probabilities, as `log_odds`."""
        return logprob_of(self.log_odds(ids, features))

    def answer(
        self, max_tokens: int, features: Sequence[int] = (), stop: Callable[[], bool] = lambda: False
    ) -> list[int]:
        """The tokens of the answer with `features` ablated."""
        self.mllm.check_length(int(self.batch.length_b[0]), max_tokens)
        with apply_change(self.mllm, self.change(features)):
            return write_answer(self.mllm, self.batch, max_tokens, stop)

    def attribution(self, ids: Sequence[int]) -> Attribution:
        """Of the last token of `ids`."""
        return attribute(self.mllm, self.sae, self.batch, ids, self.scale, self.change())

    def with_painted(self, patches: Sequence[int], fill: Fill) -> Self:
        """With patches, by their number in the model's order, painted over: in the colour that the processor takes for
        the mean, or in black."""
        if not patches:
            return self
        sizes = [image.size for image in self.pair.images]
        views = self.batch.views[0]
        hidden_p = np.isin(np.arange(sum(view.rows * view.cols for view in views)), patches)
        pixels = visible_pixels(regions(views, sizes), hidden_p, sizes)
        colour = mean_colour(self.mllm.processor) if fill == "mean" else (0, 0, 0)
        images = paint(self.pair.images, [~mask for mask in pixels], colour)
        return replace(self, pair=Pair(self.pair.text, images))

    def without_image(self) -> Self:
        return replace(self, pair=Pair(self.pair.text, []))


class Removal(NamedTuple):
    """What is taken away."""

    features: tuple[int, ...] = ()
    patches: tuple[int, ...] = ()
    fill: Fill = "mean"


class Outcome(NamedTuple):
    """What becomes of an answer of n tokens."""

    logprob_n: Array
    """float64 [n]: of its tokens, in nats."""
    answer: list[int]
    """What the model says instead."""


class Trial(NamedTuple):
    """A removal beside its controls."""

    before_n: Array
    """float64 [n]."""
    removed: Outcome
    random: list[Outcome]
    """Of each draw."""
    draws: list[Removal]
    no_image: Outcome | None
    """None where there is no image."""


def run_trial(
    prompt: Prompt,
    ids: Sequence[int],
    removal: Removal,
    draws: Sequence[Removal],
    max_tokens: int,
    stop: Callable[[], bool] = lambda: False,
) -> Trial:
    """What `removal` does to an answer, beside random removals.

    Raises:
        SaevxError: a feature that does not exist or has no direction; a prompt that the model refuses.
    """

    def outcome(removal: Removal) -> Outcome:
        variant = prompt.with_painted(removal.patches, removal.fill)
        return Outcome(variant.logprobs(ids, removal.features), variant.answer(max_tokens, removal.features, stop))

    no_image = None
    if prompt.pair.images:
        text_prompt = prompt.without_image()
        no_image = Outcome(text_prompt.logprobs(ids), text_prompt.answer(max_tokens, (), stop))
    before_n = prompt.logprobs(ids)
    return Trial(before_n, outcome(removal), [outcome(draw) for draw in draws], list(draws), no_image)


def random_removals(
    removal: Removal, features_on: Sequence[int], family: Array, n_patches: int, *, n_draws: int, seed: int
) -> list[Removal]:
    """As many features and patches as `removal` has, drawn at random: features that fire on the pair and are of no
    chosen one's family, patches that are not chosen. Fewer where there are not as many.

    Args:
        features_on: features. family: int64 [F]. n_patches: of the image.
    """
    rng = np.random.default_rng([seed, 17])
    families = family[list(removal.features)] if removal.features else family[:0]
    features = [k for k in features_on if family[k] not in families]
    patches = sorted(set(range(n_patches)) - set(removal.patches)) or list(range(n_patches))

    def draw(candidates: Sequence[int], n: int) -> tuple[int, ...]:
        return tuple(sorted(rng.permutation(np.array(candidates, np.int64))[:n].tolist()))

    return [
        Removal(draw(features, len(removal.features)), draw(patches, len(removal.patches)), removal.fill)
        for _ in range(n_draws)
    ]

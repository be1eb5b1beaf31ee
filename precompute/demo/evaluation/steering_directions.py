"""What is added to the residual stream for a word: its features, their family, the difference of means, chance."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from precompute.demo.training.word_test import N_CANDIDATES
from precompute.demo.training.word_tokens import Tokens, activations, gather, word_f1
from precompute.demo.training.words import F1, scenes_with_words
from precompute.model.batch import IMAGE, TEXT
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from precompute.utils.types import Array


class Drawing(NamedTuple):
    """How directions are found."""

    n_each_word: int
    """Train captions that hold each target, at least."""
    n_random: int
    """Random directions of each target."""
    seed: int


class Direction(NamedTuple):
    """What is added for a target at strength 1."""

    features: list[int]
    """Those that fire on the word."""
    family: list[int]
    """The one feature and its near-copies."""
    delta: dict[str, list[Tensor]]
    """By method, float32 [d]: one, or several random ones."""


def directions(mllm: Mllm, sae: SaeV, family_f: Array, targets: Sequence[str], o: Drawing) -> dict[str, Direction]:
    """By target. A feature's unit is the 99.9th percentile of its positive activations on train scenes.

    Args:
        family_f: int64 [F], equal for features of one family.
    """
    scenes = scenes_with_words("train", o.n_each_word, targets)
    tokens = gather(mllm, scenes, words=targets)
    parts = [tokens.of(m) for m in (TEXT, IMAGE)]
    f1 = F1(*(word_f1(sae, part) for part in parts))
    best_w = f1.both_wf.argmax(axis=1)
    result = {}
    for w, target in enumerate(targets):
        best_feature, by_text = int(best_w[w]), np.argsort(-f1.text_wf[w], kind="stable")[:N_CANDIDATES].tolist()
        features, family = sorted({best_feature, *by_text}), np.flatnonzero(family_f == family_f[best_feature]).tolist()
        unit = units(sae, tokens, sorted({*features, *family}))

        def total(ids: Sequence[int], unit: dict[int, float] = unit) -> Tensor:
            return torch.stack([unit[k] * sae.directions_fd[k] for k in ids]).sum(0).detach()

        sum_d = total(features)
        random_rd = np.random.default_rng([o.seed, w]).standard_normal((o.n_random, len(sum_d))).astype(np.float32)
        delta = {name: [sum_d] for name in ("features", "features-image", "features-prompt")}
        delta |= {name: [torch.zeros_like(sum_d)] for name in ("none", "prompt")}
        delta |= {
            "feature": [total([best_feature])],
            "family": [total(family)],
            "means": [torch.stack([part.difference_of_means(w) for part in parts]).mean(0)],
            "random": [random_d * (sum_d.norm() / random_d.norm()) for random_d in torch.from_numpy(random_rd)],
        }
        result[target] = Direction(features, family, delta)
    return result


def units(sae: SaeV, tokens: Tokens, features: list[int]) -> dict[int, float]:
    """99.9th percentile of each feature's positive activations; 0 where it has none."""
    z_tn = activations(sae, tokens.hidden_td, features).numpy()
    return {
        k: float(np.percentile(z_t[z_t > 0], 99.9)) if (z_t > 0).any() else 0.0
        for k, z_t in zip(features, z_tn.T, strict=True)
    }

"""Whether an SAE-V has a feature for each of the thirty words: chosen on half of the scenes, tested on the other."""

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from precompute.demo.training.word_tokens import Tokens, activations, word_f1
from precompute.demo.training.words import ALL_WORDS, F1
from precompute.model.batch import IMAGE, TEXT
from precompute.sae.sae import SaeV

N_CANDIDATES = 6
"""Features per word that steering may choose from: the best on the word's tokens."""
N_STRONGEST = 16
"""Patches of different images by which a feature is judged."""


def top_precision(
    value_t: NDArray[np.floating], scene_t: NDArray[np.int64], here_t: NDArray[np.bool_]
) -> tuple[float, NDArray[np.int64]]:
    """Share of the N_STRONGEST strongest patches, one a scene, that show the word; and their places."""
    order = np.argsort(-value_t, kind="stable")
    order = order[value_t[order] > 0]
    _, first = np.unique(scene_t[order], return_index=True)
    top_tokens = order[np.sort(first)][:N_STRONGEST]
    return (float(here_t[top_tokens].mean()) if len(top_tokens) == N_STRONGEST else 0.0), top_tokens


def words_of(sae: SaeV, train_tokens: Tokens, test_tokens: Tokens, seed: int) -> dict[str, dict[str, Any]]:
    """The feature with the largest min(F1 on tokens, on patches) on the first half of the scenes, tested on the second.

    It passes when it is active on at least half of the word's tokens, and its top 16 patches, from 16 images, show the
    word with precision ≥ .7 and above the 99th percentile of the same choice with the scenes' truth exchanged.
    """
    f1_words = F1(word_f1(sae, train_tokens.of(TEXT)), word_f1(sae, train_tokens.of(IMAGE)))
    best_w = f1_words.both_wf.argmax(axis=1)
    test_half = TestHalf.of(sae, test_tokens, best_w)
    patches = train_tokens.of(IMAGE)
    rng = np.random.default_rng(seed)
    rows = {}
    for w, word in enumerate(ALL_WORDS):
        by_text = np.argsort(-f1_words.text_wf[w], kind="stable")[:N_CANDIDATES].tolist()
        k = int(best_w[w])
        rows[word] = {
            "feature": k,
            "candidates": sorted({k, *by_text}),
            "f1_text": round(float(f1_words.text_wf[w, k]), 3),
            "f1_image": round(float(f1_words.image_wf[w, k]), 3),
            **test_half.row(w, patches.difference_of_means(w), rng),
        }
    return rows


class TestHalf(NamedTuple):
    """The scenes on which the words' features are tested."""

    text: Tokens
    image: Tokens
    z_text_tw: NDArray[np.float32]
    """[t, W]: activation of each word's feature on the text tokens."""
    z_image_tw: NDArray[np.float32]
    """[t, W]: the same on the patches."""
    truth_spw: NDArray[np.bool_]
    """[scenes, patches, W]: whether a patch, counted without sinks, shows the word."""

    @classmethod
    def of(cls, sae: SaeV, tokens: Tokens, feature_w: NDArray[np.int64]) -> Self:
        """Of tokens, and the feature [W] of each word."""
        text, image = tokens.of(TEXT), tokens.of(IMAGE)
        patch_t = np.concatenate([np.arange(n) for n in np.bincount(image.scene_t) if n])
        truth_spw = np.zeros((image.scene_t.max() + 1, patch_t.max() + 1, len(ALL_WORDS)), dtype=bool)
        truth_spw[image.scene_t, patch_t] = image.label_tw
        z_text_tw, z_image_tw = (activations(sae, t.hidden_td, feature_w).numpy() for t in (text, image))
        return cls(text, image, z_text_tw, z_image_tw, truth_spw)

    def row(self, w: int, direction_d: Tensor, rng: np.random.Generator) -> dict[str, Any]:
        """How well the word's feature does; `direction_d` is what it is compared with, a direction of h without SAE."""
        token_rate = float((self.z_text_tw[:, w] > 0)[self.text.label_tw[:, w]].mean())
        here_t, scene_t = self.image.label_tw[:, w], self.image.scene_t
        precision, top = top_precision(self.z_image_tw[:, w], scene_t, here_t)
        patch = np.arange(len(scene_t)) - np.searchsorted(scene_t, scene_t)
        chance = []
        for _ in range(500):
            order = rng.permutation(len(self.truth_spw))
            chance.append(self.truth_spw[order[scene_t[top]], patch[top], w].mean() if len(top) else 0.0)
        p99 = float(np.percentile(chance, 99))
        raw_precision, _ = top_precision((self.image.hidden_td @ direction_d).numpy() + 1e6, scene_t, here_t)
        return {
            "token_rate": round(token_rate, 3),
            "precision": round(precision, 3),
            "chance_p99": round(p99, 3),
            "box_share": round(float(here_t.mean()), 4),
            "raw_direction_precision": round(raw_precision, 3),
            "passes": token_rate >= 0.5 and precision >= 0.7 and precision > p99,
        }

"""Activations of scenes with what each token stands for: the thirty words said in captions, or seen on patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from precompute.demo.drawing import draw
from precompute.demo.scenes import Scene
from precompute.demo.training.words import ALL_WORDS, f1, patches_of
from precompute.model.batch import IMAGE, SINK, TEXT, Pair
from precompute.model.calibration import MODALITIES, mark_sinks, median_norm, sink_limits, token_norms
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV

BATCH_SCENES, BATCH_TOKENS = 16, 4096


class Tokens(NamedTuple):
    """Text and image tokens of scenes, in order, without special tokens and sinks."""

    hidden_td: Tensor
    """float32 [t, d]: h at the model's layer L."""
    modality_t: NDArray[np.uint8]
    """[t]: TEXT or IMAGE."""
    scene_t: NDArray[np.int64]
    """[t]: index into the scenes."""
    label_tw: NDArray[np.bool_]
    """[t, W]: the token is the word, or its patch shows it."""

    def of(self, modality: int) -> Tokens:
        """The tokens of one modality."""
        own_t = self.modality_t == modality
        return Tokens(self.hidden_td[own_t], self.modality_t[own_t], self.scene_t[own_t], self.label_tw[own_t])

    def difference_of_means(self, w: int) -> Tensor:
        """float32 [d]: mean h where the word is less mean h elsewhere."""
        has_word = torch.from_numpy(self.label_tw[:, w])
        return self.hidden_td[has_word].mean(0) - self.hidden_td[~has_word].mean(0)


@torch.inference_mode()
def gather(mllm: Mllm, scenes: Sequence[Scene], sink_multiple: float = 4.0, words: Sequence[str] = ALL_WORDS) -> Tokens:
    """Run scenes with their captions through the model up to layer L.

    Args:
        sink_multiple: tokens whose norm is above so many times the median of their modality are left out.
        words: what tokens are labelled with; the thirty.

    Returns:
        the text and image tokens of all scenes, in their order.
    """
    hidden_parts, modality, scene, label = [], [], [], []
    for begin in range(0, len(scenes), BATCH_SCENES):
        chunk = scenes[begin : begin + BATCH_SCENES]
        batch = mllm.prepare([Pair(item.caption, [draw(item)]) for item in chunk])
        own_bs = (batch.modality_bs == TEXT) | (batch.modality_bs == IMAGE)
        hidden_parts.append(mllm.hidden(batch).float().cpu()[torch.from_numpy(own_bs)])
        ids_bs = batch.inputs["input_ids"].cpu().numpy()
        for b, item in enumerate(chunk):
            modality_t = batch.modality_bs[b][own_bs[b]]
            text_t = modality_t == TEXT
            tokens = np.array([mllm.token_text(int(i)).strip() for i in ids_bs[b][own_bs[b]][text_t]], dtype=object)
            label_tw = np.zeros((len(modality_t), len(words)), dtype=bool)
            for w, word in enumerate(words):
                label_tw[text_t, w] = tokens == word
                label_tw[~text_t, w] = patches_of(item, word)
            modality.append(modality_t)
            scene.append(np.full(len(modality_t), begin + b))
            label.append(label_tw)
    hidden_td, modality_t = torch.cat(hidden_parts), np.concatenate(modality)
    median = {name: median_norm(hidden_td[torch.from_numpy(modality_t == m)]) for name, m in MODALITIES.items()}
    own_t = mark_sinks(modality_t, token_norms(hidden_td), sink_limits(sink_multiple, median)) != SINK
    scene_t, label_tw = np.concatenate(scene), np.concatenate(label)
    return Tokens(hidden_td[torch.from_numpy(own_t)], modality_t[own_t], scene_t[own_t], label_tw[own_t])


@torch.inference_mode()
def activations(sae: SaeV, hidden_td: Tensor, features: Sequence[int] | NDArray[np.int64]) -> Tensor:
    """float32 [t, n]: z of these features, encoded in chunks."""
    columns = torch.as_tensor(np.asarray(features))
    return torch.cat([sae.encode(h_td)[:, columns] for h_td in hidden_td.split(BATCH_TOKENS)])


@torch.inference_mode()
def word_f1(sae: SaeV, tokens: Tokens) -> NDArray[np.float64]:
    """[W, F] F1 of "the feature is active" against "the word is here" over these tokens."""
    hits_wf, fired_f = torch.zeros(tokens.label_tw.shape[1], sae.n_features), torch.zeros(sae.n_features)
    for begin in range(0, len(tokens.hidden_td), BATCH_TOKENS):
        active_tf = (sae.encode(tokens.hidden_td[begin : begin + BATCH_TOKENS]) > 0).float()
        label_tw = torch.from_numpy(tokens.label_tw[begin : begin + BATCH_TOKENS].astype(np.float32))
        hits_wf += label_tw.T @ active_tf
        fired_f += active_tf.sum(0)
    return f1(hits_wf.double().numpy(), fired_f.double().numpy(), tokens.label_tw.sum(0))

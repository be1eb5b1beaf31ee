"""Captions beside their images through the model: features of tokens and of patches, and the words they belong to."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

import numpy as np

from precompute.experiments.support.attribution import attributions, token_logprobs
from precompute.live.answers import word_numbers
from precompute.live.engine import load_engine
from precompute.model.batch import IMAGE, TEXT, Batch, Pair
from precompute.model.mllm import Mllm
from precompute.options.shared import StoreModel
from precompute.sae.encode import EncodedBatch, Scale, encode_batch
from precompute.sae.sae import SaeV
from precompute.scoring.scores import Weights
from precompute.store.reader import Store
from precompute.utils.ragged import batched
from precompute.utils.types import Array

BATCH = 16
FUNCTION_WORDS = frozenset({
    "a", "an", "the", "of", "in", "on", "to", "at", "there", "is", "are", "this", "here", "we", "see", "picture",
    "photo", "image", "and", "with", ",", ".",
})  # fmt: skip
"""Words that say nothing of the image."""


class Engine(NamedTuple):
    """Model and SAE-V, and what the store knows of each feature."""

    mllm: Mllm
    sae: SaeV
    scale: Scale
    p999_f: Array
    """float64 [F], z."""
    support_f: Array
    """float64 [F]: the weights of `supported-share`."""

    @classmethod
    def load(cls, options: StoreModel, store: Store) -> Self:
        mllm, sae = load_engine(options, store.manifest, full=True)
        p999_f = np.maximum(np.nan_to_num(store.features.table["p999"]), 1e-30)
        return cls(mllm, sae, Scale.from_manifest(store.manifest), p999_f, Weights.from_store(store).support_f)


class Reading(NamedTuple):
    """One caption beside one image; t text tokens, p patches."""

    words: list[str]
    """Of the caption, in lower case; signs stand alone."""
    word_t: Array
    """int64: which word each token belongs to."""
    token_tf: Array
    """float32 [t, F]: z / p99.9, at most 1."""
    patch_pf: Array
    """float32 [p, F], likewise; zeros for an attention sink."""
    grid: tuple[int, int]
    """Rows and columns of the patches."""
    attribution_t2: Array
    """float64 [t, 2], of `attributions`; NaN where it was not asked for."""


def read_pairs(engine: Engine, pairs: Iterable[Pair], *, gradients: bool = False) -> Iterator[Reading]:
    """The pairs in their order, several at a time.

    Args:
        gradients: also what each word's log-probability owes to the patches, which takes a backward pass a word.
    """
    mllm = engine.mllm
    for chunk in batched(pairs, BATCH):
        batch = mllm.prepare(chunk)
        logprobs = token_logprobs(mllm, batch) if gradients else None
        hidden_bsd = mllm.hidden(batch) if logprobs is None else logprobs[1].detach()
        encoded_batch = encode_batch(hidden_bsd, batch, engine.sae, engine.scale)
        words_b = [words_of(mllm, encoded_batch.token_id_t[at]) for at in text_positions(encoded_batch, batch)]
        owed_b: list[Array] = []
        if logprobs is not None:
            word_masks = [
                np.array([words[w] not in FUNCTION_WORDS for w in word_t], dtype=bool) for words, word_t in words_b
            ]
            owed_b = attributions(engine.sae, batch, encoded_batch, logprobs, word_masks, engine.scale)
        for b, (words, word_t) in enumerate(words_b):
            token_tf, patch_pf = ratios(encoded_batch, batch, b, engine)
            no_values = np.full((len(word_t), 2), np.nan)
            view = batch.views[b][0]
            yield Reading(words, word_t, token_tf, patch_pf, (view.rows, view.cols), owed_b[b] if owed_b else no_values)


def text_positions(encoded_batch: EncodedBatch, batch: Batch) -> list[Array]:
    """Of each pair the positions of its own text among all tokens of the batch without padding, int64 [t]."""
    return [
        int(encoded_batch.start_b[b]) + np.flatnonzero(batch.modality_bs[b] == TEXT) for b in range(len(batch.length_b))
    ]


def words_of(mllm: Mllm, token_ids: Array) -> tuple[list[str], Array]:
    """(words, int64 [t] which word each token belongs to) of a text's tokens, int [t]."""
    texts = [mllm.token_text(token) for token in token_ids.tolist()]
    number_t = word_numbers(texts)
    words = [""] * (max(number_t, default=-1) + 1)
    for text, number in zip(texts, number_t, strict=True):
        words[number] += text.strip().lower()
    return words, np.array(number_t, dtype=np.int64)


def ratios(encoded_batch: EncodedBatch, batch: Batch, b: int, engine: Engine) -> tuple[Array, Array]:
    """(text tokens [t, F], patches [p, F]) of pair b as z / p99.9, float32, at most 1."""
    t, e = encoded_batch.slices(b)
    n_tokens = t.stop - t.start
    all_tf = np.zeros((n_tokens, len(engine.p999_f)), np.float32)
    row_e = np.repeat(np.arange(n_tokens), np.diff(encoded_batch.offset_t[t.start : t.stop + 1]))
    z_e = encoded_batch.value_e[e].astype(np.float64) * 2.0**-engine.scale.log2
    all_tf[row_e, encoded_batch.feature_e[e]] = np.minimum(z_e / engine.p999_f[encoded_batch.feature_e[e]], 1)
    modality_t = batch.modality_bs[b][:n_tokens]
    return all_tf[modality_t == TEXT], all_tf[modality_t == IMAGE]

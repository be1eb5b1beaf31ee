"""The patch scores, the masks of pixels and what a model says without some of its tokens, computed naively."""

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from precompute.geometry import View, patch_box
from precompute.model.batch import IMAGE, SINK, TEXT, Pair
from precompute.model.mllm import Mllm
from precompute.patches import ranking as patches

Array = Any


def naive(
    offset_t: Array, feature_e: Array, z_e: Array, modality_t: Array, features: patches.FeatureWeights
) -> dict[str, list[float]]:
    """The scores of every image token, feature by feature."""
    omega_f, cross_modal_f, family_f = features
    events = [
        [(int(feature_e[e]), float(z_e[e])) for e in range(offset_t[t], offset_t[t + 1])]
        for t in range(len(modality_t))
    ]
    on_text = {k for t, events_here in enumerate(events) if modality_t[t] == TEXT for k, _ in events_here}
    result: dict[str, list[float]] = {name: [] for name in patches.SCORES}
    for t, events_here in enumerate(events):
        if modality_t[t] in (IMAGE, SINK):
            result["l0"].append(len(events_here))
            result["l1"].append(sum(z for _, z in events_here))
            result["cooccurring-l0"].append(sum(k in on_text for k, _ in events_here))
            result["cosine"].append(sum(float(omega_f[k]) for k, _ in events_here))
            ks = [k for k, _ in events_here if cross_modal_f[k]]
            result["cosine-cross-modal"].append(sum(float(omega_f[k]) for k in ks))
            omega_of = {k: max(float(omega_f[j]) for j in ks if family_f[j] == family_f[k]) for k in ks}
            result["cosine-family"].append(sum({int(family_f[k]): omega for k, omega in omega_of.items()}.values()))
    return result


def features_of(rng: np.random.Generator, n: int) -> patches.FeatureWeights:
    """Made-up features: some without ω, some not cross-modal, some alone in their family."""
    omega_f = np.where(rng.random(n) < 0.3, 0.0, rng.normal(0.3, 0.3, n))
    return patches.FeatureWeights(omega_f, rng.random(n) < 0.6, rng.integers(0, n // 2, n))


class EnteredError(Exception):
    """The decoder was about to run."""


@torch.inference_mode()
def next_token_without(mllm: Mllm, inputs: dict[str, torch.Tensor], dropped_s: Array) -> torch.Tensor:
    """Logits [V] of the next token, the tokens dropped cut out of the sequence and the true positions of the others
    given, for a LLaVA."""
    layer_inputs: list[torch.Tensor] = []

    def enter(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        layer_inputs.append(kwargs["inputs_embeds"])
        raise EnteredError

    handle = mllm.decoder.register_forward_pre_hook(enter, with_kwargs=True)
    with contextlib.suppress(EnteredError):  # no layer is run with all of its tokens
        mllm.model(**inputs, use_cache=False)
    handle.remove()
    n = layer_inputs[0].shape[1]
    position = torch.tensor([s for s in range(n) if s >= len(dropped_s) or not dropped_s[s]])
    mask = torch.ones(1, len(position), dtype=torch.long)  # without it, jumps in the positions would part the sequence
    output = mllm.decoder(inputs_embeds=layer_inputs[0][:, position], position_ids=position[None], attention_mask=mask)
    return mllm.model.get_output_embeddings()(output.last_hidden_state[0, -1])


def speech(mllm: Mllm, pair: Pair, kept_p: Any = None) -> Iterator[str]:
    """What the model has said after each token, the whole sequence run anew for the next one.

    Args:
        kept_p: bool [p], image tokens that are not cut out.
    """
    batch = mllm.prepare([pair], generate=True)
    inputs = {k: v for k, v in batch.inputs.items() if k != "attention_mask"}
    dropped_s = np.zeros(len(batch.modality_bs[0]), dtype=bool)
    if kept_p is not None:
        dropped_s[batch.modality_bs[0] == IMAGE] = ~kept_p
    ids: list[int] = []
    while True:
        ids.append(int(next_token_without(mllm, inputs, dropped_s).argmax()))
        yield mllm.tokenizer.decode(ids, skip_special_tokens=True).strip().lower()
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[ids[-1]]])], dim=1)


def naive_masks(views: list[View], kept_p: Array, sizes: list[tuple[int, int]]) -> list[Array]:
    """Pixel by pixel: does its middle lie in the box of a patch kept?"""
    boxes: list[list[tuple[float, ...]]] = [[] for _ in sizes]
    p = 0
    for view in views:
        for row in range(view.rows):
            for col in range(view.cols):
                if kept_p[p]:
                    boxes[view.image].append(patch_box(view, row, col, sizes[view.image]))
                p += 1
    return [naive_mask(size, tuple(own_boxes)) for size, own_boxes in zip(sizes, boxes, strict=True)]


@lru_cache(maxsize=1000)  # the same patches are painted black and in the mean colour
def naive_mask(size: tuple[int, int], boxes: tuple[tuple[float, ...], ...]) -> Array:
    """Of one image, bool [height, width]."""
    width, height = size
    mask = np.zeros((height, width), dtype=bool)
    for y in range(height):
        for x in range(width):
            mask[y, x] = any(x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1 for x0, y0, x1, y1 in boxes)
    return mask

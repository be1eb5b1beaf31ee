"""Steering with the attention of the unsteered model (METHOD, *Steering*): above the hook layer a steered row gets the
queries and keys of the row in which the unsteered model reads the same text, and its own values. So its softmax weights
are those of the unsteered run, whatever computes them, and only what they move can change.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from precompute.live.steer_rows import AllRows
from precompute.model.hooks import remove_at_end
from precompute.model.mllm import Mllm


def why_not_frozen(mllm: Mllm) -> str | None:
    """One sentence why the attention of this model cannot be frozen; None where it can.

    Queries, keys and values must be projections of their own: what also makes the values cannot be exchanged."""
    for layer in mllm.decoder.layers[mllm.layer + 1 :]:
        attention = _attention(layer)
        if attention is None or not _is_separate(attention):
            return (
                "The attention of this model cannot be frozen, because a layer above the steered one has no queries "
                "and keys of its own beside its values: leave `attention` at free."
            )
    return None


@contextmanager
def frozen_attention(mllm: Mllm, rows: AllRows) -> Iterator[None]:
    """While open, queries and keys above the hook layer are those of each row's twin (`AllRows.twins`)."""

    def exchange(_module: Any, _args: Any, output: Tensor) -> Tensor:
        twins = rows.twins()
        return output if twins == list(range(len(twins))) else output[twins]

    attentions = [a for layer in mllm.decoder.layers[mllm.layer + 1 :] if (a := _attention(layer)) is not None]
    projections = [getattr(m, name) for m in attentions for name in ("q_proj", "k_proj") if _has(m, name)]
    with remove_at_end(*(a.register_forward_hook(exchange) for a in projections)):
        yield


def _attention(layer: nn.Module) -> nn.Module | None:
    """The self-attention of a decoder layer."""
    return next((module for module in layer.children() if _has(module, "q_proj")), None)


def _has(attention: nn.Module, name: str) -> bool:
    return getattr(attention, name, None) is not None


def _is_separate(attention: nn.Module) -> bool:
    """Whether keys have a projection of their own where values have one, and queries nothing more in theirs, such as a
    gate. A layer with neither takes both from the cache of a layer below."""
    width, projection = getattr(attention.q_proj, "out_features", None), getattr(attention, "o_proj", None)
    no_gate = width is None or width == getattr(projection, "in_features", width)
    return no_gate and _has(attention, "k_proj") == _has(attention, "v_proj")

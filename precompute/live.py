"""A live request, encoded by the very code of the offline pass and with that store's own scale and sinks."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from precompute.encode import Array, Scale, encode_batch
from precompute.errors import SaevxError
from precompute.model import Mllm, Pair, View
from precompute.sae import SaeV


class Encoded(NamedTuple):
    """One pair; t tokens in the model's order, e events."""

    token_id_t: Array
    modality_t: Array
    """uint8: TEXT, IMAGE, SPECIAL or SINK."""
    offset: Array
    """int64 [t+1]: events of each token."""
    feature_e: Array
    value_e: Array
    """float16 in the store's units: z = value · 2^(−scale_log2)."""
    views: list[View]
    hidden_td: Tensor
    """h in the model's dtype, on its device."""
    norms: Array
    """float32 ‖h‖ [t]."""
    error_t: Array
    """float64 ‖h − ĥ‖² of counted tokens; zeros unless asked for."""


def encode_pair(
    mllm: Mllm, sae: SaeV, manifest: dict[str, Any], pair: Pair, *, errors: bool = False
) -> Encoded:
    """Features of one pair; either side may be missing.

    Args:
        manifest: of the store that the answer is compared with.
        errors: also measure ‖h − ĥ‖² per token.

    Raises:
        SaevxError: nothing to encode, images for a text-only model, activations that cannot be stored.
    """
    if not pair.text and not pair.images:
        raise SaevxError("Give an image, a text or both.")
    batch = mllm.prepare([pair])
    one = encode_batch(mllm.hidden(batch), batch, sae, Scale.of(manifest), errors=errors)
    if one.reason_b[0] is not None:
        raise SaevxError(f"This pair cannot be encoded: {one.reason_b[0]}.")
    return Encoded(
        one.token_id_t, one.modality_t, one.offset_t, one.feature_e, one.value_e,
        one.views[0], one.hidden_td, one.norm_t, one.error_t,
    )  # fmt: skip

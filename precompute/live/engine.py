"""A live request, encoded by the very code of the offline pass and with that store's own scale and sinks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from precompute.errors import PairError, SaevxError
from precompute.geometry import View
from precompute.live.feature_search import queried_tokens, readable
from precompute.model.batch import Batch, Pair
from precompute.model.identity import check_model
from precompute.model.mllm import Mllm
from precompute.model.processor import mean_colour
from precompute.options.shared import SaeFormat, StoreModel
from precompute.sae.encode import Scale, encode_batch
from precompute.sae.sae import SaeV
from precompute.store.events import SampleEvents
from precompute.store.opening import source_of
from precompute.utils.types import Array

# The server gets everything of model and SAE from here.
__all__ = [
    "Batch", "EncodedPair", "Mllm", "Pair", "SaeV", "Scale", "caption_nll", "check_model", "encode_pair", "load_engine",
    "load_sae",
]  # fmt: skip


class EncodedPair(NamedTuple):
    """One pair; t tokens in the model's order, e events."""

    token_id_t: Array
    """int [t]: ids in the vocabulary."""
    modality_t: Array
    """uint8: TEXT, IMAGE, SPECIAL or SINK."""
    offset_t: Array
    """int64 [t+1]: events of each token."""
    feature_e: Array
    """int [e]: active features, token by token."""
    value_e: Array
    """float16 in the store's units: z = value · 2^(−scale_log2)."""
    views: list[View]
    hidden_td: Tensor
    """h in the model's dtype, on its device."""
    norm_t: Array
    """float32 ‖h‖ [t]."""
    error_t: Array
    """float64 ‖h − ĥ‖² of counted tokens; zeros unless asked for."""

    def events(self, scale_log2: int) -> SampleEvents:
        """What fires, as of a stored sample: z in the SAE's units, by the store's `scale_log2`."""
        return SampleEvents(
            np.asarray(self.token_id_t),
            np.asarray(self.modality_t),
            np.asarray(self.offset_t),
            np.asarray(self.feature_e).astype(np.int64),
            np.asarray(self.value_e).astype(np.float64) * 2.0**-scale_log2,
        )

    def view_lists(self) -> list[list[Any]]:
        """Of each view [rows, columns, box in pixels of the original, number of the image], as a store has them."""
        return [[view.rows, view.cols, list(view.box), view.image] for view in self.views]


def encode_pair(mllm: Mllm, sae: SaeV, manifest: dict[str, Any], pair: Pair, *, errors: bool = False) -> EncodedPair:
    """Features of one pair; either side may be missing.

    Args:
        manifest: of the store that the answer is compared with.
        errors: also measure ‖h − ĥ‖² per token.

    Raises:
        PairError: nothing to encode, activations that cannot be stored, or whatever `Mllm.prepare` refuses.
    """
    if not pair.text and not pair.images:
        raise PairError("there is neither image nor text", "give one of the two or both")
    batch = mllm.prepare([pair])
    encoded_batch = encode_batch(mllm.hidden(batch), batch, sae, Scale.from_manifest(manifest), errors=errors)
    if encoded_batch.reason_b[0] is not None:
        raise PairError(encoded_batch.reason_b[0])
    return EncodedPair(
        encoded_batch.token_id_t, encoded_batch.modality_t, encoded_batch.offset_t, encoded_batch.feature_e,
        encoded_batch.value_e, encoded_batch.views[0], encoded_batch.hidden_td, encoded_batch.norm_t,
        encoded_batch.error_t,
    )  # fmt: skip


def caption_nll(mllm: Mllm, pair: Pair) -> Array:
    """float64 [3], as a sample of the pass has them, with NaN for the third: mean cross-entropy of the caption beside
    its images and by itself, in nats; NaN without a caption or without the whole model."""
    nll_3 = np.full(3, np.nan)
    if mllm.full and pair.text:
        for i, images in enumerate((pair.images, [])):
            nll_3[i] = mllm.hidden_and_nll(mllm.prepare([Pair(pair.text, images)]), quick=True)[1][0]
    return nll_3


def read_query(
    mllm: Mllm, sae: SaeV, manifest: dict[str, Any], text: str, images: Sequence[Image.Image]
) -> EncodedPair:
    """Features of what a visitor sends, with the errors; its modalities are those of `queried_tokens`.

    Raises:
        PairError: as `encode_pair`.
    """
    content = readable(text, images, mllm.multimodal, mean_colour(mllm.processor))
    encoded_pair = encode_pair(mllm, sae, manifest, Pair(*content), errors=True)
    modality_t = queried_tokens(encoded_pair.modality_t, text, bool(images))
    return encoded_pair._replace(modality_t=modality_t, views=encoded_pair.views if images else [])


def load_sae(
    store: Path, manifest: Mapping[str, Any], source: str | None, device: str, format: SaeFormat = "auto"
) -> SaeV:
    """The SAE of a store, from `source` or where the store says it lies.

    Args:
        format: auto is the store's own, where no source is given.

    Raises:
        SaevxError: it is not found, or is not the one the store was made with.
    """
    layer = int(manifest["model"]["layer"])
    if source is None and format == "auto":
        format = manifest["sae"].get("format", format)
    sae = SaeV.load(source or source_of(store, manifest, "sae"), device, layer=layer, format=format)
    if sae.sha256 != manifest["sae"]["sha256"]:
        raise SaevxError(f"The SAE found is not the one of store {manifest['name']}: name the right one with --sae.")
    sae.fold_factor_of_store(dict(manifest))
    return sae


def load_engine(options: StoreModel, manifest: Mapping[str, Any], *, full: bool) -> tuple[Mllm, SaeV]:
    """Model and SAE as the store had them, unless the options name others.

    Args:
        full: also load the layers above the store's.

    Raises:
        SaevxError: either is not found, or is not the store's.
    """
    o = options
    sae = load_sae(o.store, manifest, o.sae, o.device, o.sae_format)
    of_store = manifest["model"]
    mllm = Mllm.load(
        o.model or source_of(o.store, manifest, "model"),
        layer=int(of_store["layer"]),
        full=full,
        device=o.device,
        dtype=of_store["dtype"] if o.dtype == "auto" else o.dtype,
        device_map=o.device_map,
        quantize=of_store.get("quantize"),
        geometry=manifest["options"].get("geometry"),
    )
    sae.check(mllm.d_model)
    check_model(mllm, manifest)
    return mllm, sae

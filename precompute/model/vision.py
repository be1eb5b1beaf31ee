"""The norm of each image token before the language model: a control that needs no SAE (METHOD, *Patch filtering*)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

from precompute.model.batch import IMAGE, Batch
from precompute.model.calibration import token_norms
from precompute.model.hooks import remove_at_end
from precompute.model.mllm import Mllm
from precompute.utils.types import Array

PROJECTOR = "multi_modal_projector"
SOURCES = {
    "projector": f"norm of the feature that enters {PROJECTOR}",
    "embedding": "norm of the image token's embedding, as it enters the language model's first layer",
}


class VisionNorms:
    """Norms of a forward pass's image tokens, before the language model."""

    def __init__(self) -> None:
        self.feature_n: list[Array] = []
        """float64 ‖feature‖ of everything that entered the projector."""
        self.embedding_bs: list[Array] = []
        """float64 [b, s] ‖embedding‖ of all tokens."""

    def of(self, batch: Batch) -> tuple[list[Array], str]:
        """float64 norms of the image tokens of each pair, and which of SOURCES they are.

        The tower's own wherever it has as many features as there are image tokens: a model that merges, cuts or
        pads them behind the tower has none for a token.
        """
        image_bs = batch.modality_bs == IMAGE
        ends = np.cumsum(image_bs.sum(axis=1))
        feature_n = np.concatenate(self.feature_n) if self.feature_n else np.zeros(0)
        if len(feature_n) == ends[-1]:
            return np.split(feature_n, ends[:-1]), "projector"
        return np.split(self.embedding_bs[0][image_bs], ends[:-1]), "embedding"


@contextmanager
def capture_vision_norms(mllm: Mllm) -> Iterator[VisionNorms]:
    """While open, a forward pass leaves its norms."""
    norms = VisionNorms()

    def enter_projector(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        features = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.is_floating_point()]
        norms.feature_n += [token_norms(a).ravel() for a in features[:1]]

    def enter_decoder(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        norms.embedding_bs.append(token_norms(args[0] if args else kwargs["hidden_states"]))

    handles = [mllm.decoder.layers[0].register_forward_pre_hook(enter_decoder, with_kwargs=True)]
    projector = next((m for name, m in mllm.model.named_modules() if name.split(".")[-1] == PROJECTOR), None)
    if projector is not None:
        handles.append(projector.register_forward_pre_hook(enter_projector, with_kwargs=True))
    with remove_at_end(*handles):
        yield norms

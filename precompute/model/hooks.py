"""Looking at, and changing, what goes through a model's modules: every forward hook is set here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from precompute.errors import SaevxError
from precompute.model.batch import IMAGE, Batch
from precompute.utils.tensors import exact
from precompute.utils.types import Array

if TYPE_CHECKING:
    from precompute.model.mllm import Mllm

PROJECTOR = "multi_modal_projector"
SOURCES = {
    "projector": f"norm of the feature that enters {PROJECTOR}",
    "embedding": "norm of the image token's embedding, as it enters the language model's first layer",
}


@contextmanager
def attached(*handles: RemovableHandle) -> Iterator[None]:
    """Removes hooks at the end, whatever happens."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def capture(module: nn.Module) -> Iterator[list[Tensor]]:
    """While open, the output of every forward of the module (its first tensor) is appended to the list."""
    outputs: list[Tensor] = []

    def hook(_module: Any, _args: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    with attached(module.register_forward_hook(hook)):
        yield outputs


@contextmanager
def replace(mllm: Mllm, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, h [b, s, d] after layer L goes through `change`, which gets a copy that it may alter and return.

    Raises:
        SaevxError: at the end, where the model did not pass through the layer.
    """
    called = False

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        nonlocal called
        called = True
        changed = change((output[0] if isinstance(output, tuple) else output).clone())
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    with attached(mllm.decoder_layer().register_forward_hook(hook)):
        yield
    if not called:
        raise SaevxError(
            f"The model does not pass through its layer {mllm.layer}, so nothing was replaced: choose another --layer."
        )


@contextmanager
def bfloat16_products(modules: Iterable[nn.Module]) -> Iterator[None]:
    """While open, the linear layers of these modules may round what they multiply to bfloat16, on a CPU that has units
    for it: they are then two to three times as fast."""
    products = getattr(torch.backends.mkldnn, "matmul", None)  # from torch 2.9 on
    if products is None:
        yield
        return
    before = products.fp32_precision

    def begin(_module: Any, _args: Any) -> None:
        products.fp32_precision = "bf16"

    def end(_module: Any, _args: Any, _output: Any) -> None:
        products.fp32_precision = before

    # Only in linear layers: the small products of attention are several times slower that way.
    linear = [part for module in modules for part in module.modules() if isinstance(part, nn.Linear)]
    handles = [module.register_forward_pre_hook(begin) for module in linear]
    handles += [module.register_forward_hook(end, always_call=True) for module in linear]
    with attached(*handles):
        yield


# ---- how strong the vision tower says that an image token is: a control that needs no SAE (METHOD, *Patch filtering*)


class VisionNorms:
    """Norms of a forward pass's image tokens, before the language model."""

    def __init__(self) -> None:
        self.feature_n: list[Tensor] = []
        """float64 ‖feature‖ of everything that entered the projector."""
        self.embedding_bs: list[Tensor] = []
        """float64 [b, s] ‖embedding‖ of all tokens."""

    def of(self, batch: Batch) -> tuple[list[Array], str]:
        """float64 norms of the image tokens of each pair, and which of SOURCES they are.

        The tower's own wherever it has as many features as there are image tokens: a model that merges, cuts or
        pads them behind the tower has none for a token.
        """
        image_bs = batch.modality_bs == IMAGE
        ends = np.cumsum(image_bs.sum(axis=1))
        feature_n = torch.cat(self.feature_n).numpy() if self.feature_n else np.zeros(0)
        if len(feature_n) == ends[-1]:
            return np.split(feature_n, ends[:-1]), "projector"
        return np.split(self.embedding_bs[0].numpy()[image_bs], ends[:-1]), "embedding"


@contextmanager
def capture_vision_norms(mllm: Mllm) -> Iterator[VisionNorms]:
    """While open, a forward pass leaves its norms."""
    norms = VisionNorms()

    def enter_projector(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        features = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor) and one.is_floating_point()]
        norms.feature_n += [norm_of(one).flatten() for one in features[:1]]

    def enter_decoder(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        norms.embedding_bs.append(norm_of(args[0] if args else kwargs["hidden_states"]))

    handles = [mllm.decoder.layers[0].register_forward_pre_hook(enter_decoder, with_kwargs=True)]
    projector = next((m for name, m in mllm.model.named_modules() if name.split(".")[-1] == PROJECTOR), None)
    if projector is not None:
        handles.append(projector.register_forward_pre_hook(enter_projector, with_kwargs=True))
    with attached(*handles):
        yield norms


def norm_of(x: Tensor) -> Tensor:
    """float64 norms along the last dimension, on the CPU."""
    return torch.linalg.vector_norm(exact(x.float()), dim=-1, dtype=torch.float64).cpu()

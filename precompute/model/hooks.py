"""Looking at, and changing, what goes through a model's modules: every forward hook is set here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from precompute.errors import SaevxError


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
def replace(module: nn.Module, layer: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, h [b, s, d] after layer `layer`, which is this module, goes through `change`. It gets a copy that it
    may alter and return.

    Raises:
        SaevxError: at the end, where the model did not pass through the layer.
    """
    called = False

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        nonlocal called
        called = True
        changed = change((output[0] if isinstance(output, tuple) else output).clone())
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    with attached(module.register_forward_hook(hook)):
        yield
    if not called:
        raise SaevxError(
            f"The model does not pass through its layer {layer}, so nothing was replaced: choose another --layer."
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

"""Looking at, and changing, what goes through a model's modules: every forward hook is set here."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from precompute.errors import SaevxError


@contextmanager
def remove_at_end(*handles: RemovableHandle) -> Iterator[None]:
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

    with remove_at_end(module.register_forward_hook(hook)):
        yield outputs


@contextmanager
def replace(module: nn.Module, layer: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, h [b, s, d] after layer `layer`, which is this module, goes through `change`. It gets a copy that it
    may alter and return.

    Raises:
        SaevxError: at the end, where the model did not pass through the layer.
    """
    was_called = False

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        nonlocal was_called
        was_called = True
        new_hidden = change((output[0] if isinstance(output, tuple) else output).clone())
        return (new_hidden, *output[1:]) if isinstance(output, tuple) else new_hidden

    with remove_at_end(module.register_forward_hook(hook)):
        yield
    if not was_called:
        raise SaevxError(
            f"The model does not pass through its layer {layer}, so nothing was replaced: choose another --layer."
        )


@contextmanager
def without_tokens(layers: Iterable[nn.Module], dropped_bs: Tensor) -> Iterator[None]:
    """While open, nothing in a forward over whole sequences attends to the tokens dropped, bool [b, s], but each of
    them to itself: the others are computed as if these had been left out, at the positions that they had.

    Raises:
        SaevxError: attention that takes no mask of its own.
    """
    memo: tuple[Any, Tensor] | None = None

    def hook(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        nonlocal memo
        n, mask = (args[0] if args else kwargs["hidden_states"]).shape[1], kwargs.get("attention_mask")
        if memo is None or memo[0] is not mask or memo[1].shape[-1] != n:  # layers of one kind share a mask
            memo = mask, close(mask, n)
        return args, {**kwargs, "attention_mask": memo[1]}

    def close(mask: Any, n: int) -> Tensor:
        """[b, 1, n, n]; None is causal."""
        diagonal = torch.eye(n, dtype=torch.bool, device=dropped_bs.device)
        mask = torch.ones_like(diagonal).tril()[None, None] if mask is None else mask
        if not isinstance(mask, Tensor) or mask.dim() != 4:
            raise SaevxError("This model's attention cannot leave single tokens out: choose --removed black or mean.")
        closed_b1nn = nn.functional.pad(dropped_bs, (0, n - dropped_bs.shape[1]))[:, None, None, :] & ~diagonal
        return mask.masked_fill(closed_b1nn, False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min)

    with remove_at_end(*(layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in layers)):
        yield


@contextmanager
def bfloat16_products(modules: Iterable[nn.Module]) -> Iterator[None]:
    """While open, the linear layers of these modules may round what they multiply to bfloat16, on a CPU that has units
    for it: they are then two to three times as fast."""
    products = getattr(torch.backends.mkldnn, "matmul", None)  # from torch 2.9 on
    if products is None:
        yield
        return
    old_precision = products.fp32_precision

    def begin(_module: Any, _args: Any) -> None:
        products.fp32_precision = "bf16"

    def end(_module: Any, _args: Any, _output: Any) -> None:
        products.fp32_precision = old_precision

    # Only in linear layers: the small products of attention are several times slower that way.
    linear = [part for module in modules for part in module.modules() if isinstance(part, nn.Linear)]
    handles = [module.register_forward_pre_hook(begin) for module in linear]
    handles += [module.register_forward_hook(end, always_call=True) for module in linear]
    with remove_at_end(*handles):
        yield

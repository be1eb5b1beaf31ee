"""Operations on tensors that depend on the device: sorting, searching and float64; hashes in int64.

On a CPU, NumPy sorts and searches flat arrays several times faster than torch. Apple's GPUs have no float64. torch is
imported only where a tensor is at hand: `saevx verify` needs none.
"""

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Numbers = TypeVar("Numbers", "Tensor", NDArray[np.int64])


def on_float64_device(x: "Tensor") -> "Tensor":
    """x on a device that has float64: moved to the CPU where its own has none (Apple's GPUs)."""
    return x.cpu() if x.device.type == "mps" else x


def sorted_numbers(number_n: "Tensor") -> "Tensor":
    """int64 [n], ascending."""
    if number_n.device.type == "cpu":
        import torch

        return torch.from_numpy(np.sort(number_n.numpy()))
    return number_n.sort().values


def argsort_distinct(number_n: "Tensor") -> "Tensor":
    """int64 [n]: indices that put distinct numbers in ascending order."""
    if number_n.device.type == "cpu":
        import torch

        return torch.from_numpy(np.argsort(number_n.numpy()))
    return number_n.argsort()


def nonzero_indices(mask_n: "Tensor") -> "Tensor":
    """int64: ascending indices at which a mask holds."""
    if mask_n.device.type == "cpu":
        import torch

        return torch.from_numpy(np.flatnonzero(mask_n.numpy()))
    return mask_n.nonzero().squeeze(1)


def mix(x: Numbers, number: Numbers) -> Numbers:
    """int64, tensors or arrays: a hash with one more number mixed in (splitmix64's finaliser, Steele et al. 2014).
    int64 wraps around."""
    result = x ^ number
    result += as_int64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        result ^= result >> shift & (1 << 64 - shift) - 1  # zeros come in from the left
        result *= as_int64(factor)
    return result


def as_int64(number: int) -> int:
    """The int64 that has the same 64 bits as an unsigned number."""
    return number - (number >> 63 << 64)

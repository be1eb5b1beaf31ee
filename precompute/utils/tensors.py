"""What is done otherwise on one device than on another.

Sorting and searching of flat tensors: NumPy's is several times faster than torch's on a CPU. float64: not everywhere.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def exact(x: Tensor) -> Tensor:
    """x where float64 can be had: on the CPU where the device, as Apple's GPUs, has none."""
    return x.cpu() if x.device.type == "mps" else x


def sorted_numbers(number_n: Tensor) -> Tensor:
    """int64, rising."""
    if number_n.device.type == "cpu":
        return torch.from_numpy(np.sort(number_n.numpy()))
    return number_n.sort().values


def order_of(number_n: Tensor) -> Tensor:
    """int64: the places in rising order of distinct numbers."""
    if number_n.device.type == "cpu":
        return torch.from_numpy(np.argsort(number_n.numpy()))
    return number_n.argsort()


def places(mask_n: Tensor) -> Tensor:
    """int64: where a mask holds."""
    if mask_n.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask_n.numpy()))
    return mask_n.nonzero().squeeze(1)


def run_starts(*keys: Tensor) -> Tensor:
    """int64: where each run of equal keys begins; of several tensors, of entries equal in all."""
    changed = torch.ones(len(keys[0]), dtype=torch.bool, device=keys[0].device)
    if len(changed) > 1:
        torch.ne(keys[0][1:], keys[0][:-1], out=changed[1:])
        for key in keys[1:]:
            changed[1:] |= key[1:] != key[:-1]
    return places(changed)


def run_ends(begin_r: Tensor, n: int) -> Tensor:
    """int64: where each run ends, the last of them at n."""
    return torch.cat([begin_r[1:], begin_r.new_full((min(1, len(begin_r)),), n)])


def rank_in_run(key_n: Tensor) -> Tensor:
    """0, 1, 2 … inside each run of equal keys."""
    begin = run_starts(key_n)
    length = run_ends(begin, len(key_n)) - begin
    return torch.arange(len(key_n), device=key_n.device) - begin.repeat_interleave(length)


def mix(x: Tensor, number: Tensor) -> Tensor:
    """One more number in the hash: splitmix64's finaliser (Steele et al. 2014), in int64 that wraps around."""
    mixed = x ^ number
    mixed += signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed ^= mixed >> shift & (1 << 64 - shift) - 1  # zeros come in from the left
        mixed *= signed(factor)
    return mixed


def signed(number: int) -> int:
    """The same 64 bits as a number that int64 holds."""
    return number - (number >> 63 << 64)

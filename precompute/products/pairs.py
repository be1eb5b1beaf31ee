"""Products of single pairs of vectors, the same to the last bit whichever pairs are asked for together."""

import warnings

import numpy as np
import torch
from torch import Tensor

from precompute.products.candidates import Pairs
from precompute.utils.types import Array

_AT_ONCE = 1 << 22
"""Pairs at a time."""


def pair_products(left_rd: Tensor, right_nd: Tensor, pairs: Pairs) -> Array:
    """float32 [p]: left[row] · right[col] of each pair.

    On a CPU each pair is one vectorised loop over d, so a value depends on the two vectors alone; a matrix product
    would add up in an order that depends on its shape.

    Args:
        left_rd, right_nd: float32, on the CPU. pairs: rows rise.
    """
    left_rd, right_nd = left_rd.contiguous(), right_nd.contiguous()
    n_rows, n_p = len(left_rd), len(pairs.row_p)
    value_p = np.empty(n_p, np.float32)
    for low in range(0, n_p, _AT_ONCE):
        row_p, col_p = (ids[low : low + _AT_ONCE] for ids in pairs)
        start_r = torch.from_numpy(np.searchsorted(row_p, np.arange(n_rows + 1)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that CSR tensors may change in a later version
            pattern = torch.sparse_csr_tensor(
                start_r,
                torch.from_numpy(col_p),
                torch.zeros(len(col_p)),
                (n_rows, len(right_nd)),
                check_invariants=False,
            )
            product = torch.sparse.sampled_addmm(pattern, left_rd, right_nd.T, beta=0.0)
        value_p[low : low + _AT_ONCE] = product.values().numpy()
    return value_p

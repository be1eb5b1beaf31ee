"""Vectors in float32 and in bfloat16, and how far a product of the one can be from that of the other.

Let a and b be float32 vectors of d numbers, ã and b̃ their roundings to bfloat16. Then

    a·b − ã·b̃ = (a − ã)·b + ã·(b − b̃),   so   |a·b − ã·b̃| ≤ ‖a − ã‖ ‖b‖ + ‖ã‖ ‖b − b̃‖      (Cauchy and Schwarz)

where ‖a − ã‖ is measured, not estimated. A product of two bfloat16 numbers is exact in float32. Their sum in float32,
in any order, errs by at most γ ‖ã‖ ‖b̃‖, γ = d·2⁻²³ (Higham 2002, section 3.1; 2⁻²³ in place of 2⁻²⁴ allows for units
that cut off). The float32 value by which winners are decided errs by at most γ ‖a‖ ‖b‖ itself. Together, with
L = ‖·‖ + e and e = ‖a − ã‖:

    |value − sum| ≤ (e_a + 3γ L_a) L_b + L_a e_b                                                   (`bound`)

A sum that is written as bfloat16 is rounded once more, by at most 2⁻⁸ of what is written (`OUTPUT`). Numbers below
2⁻¹²⁶, which such units take for 0, are in e. The same bound with e = 0 is that of a product in float32.
"""

from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precompute.utils.ragged import slices
from precompute.utils.types import Array

OUTPUT = {torch.bfloat16: 2.0**-8, torch.float32: 0.0}
"""Share of a written value by which writing it may have rounded it."""
FLUSHED = 1e-34
"""‖·‖ of what bfloat16 units take for 0, and more: √d · 2⁻¹²⁶."""
UNDERFLOW = 2.0**-62
"""The square of a smaller number may be 0 in float32."""
EXTREME = 1e12
"""Vectors as long as this, and those of which some number is not finite, are multiplied in float32."""
_MULTIPLE = 32
"""Units take so many numbers at a time; zeros change no product."""


class Rows(NamedTuple):
    """n vectors for products, and what bounds their error."""

    number_nd: Tensor
    """float32 or bfloat16 [n', d'], contiguous: what is multiplied; rows and columns of zeros at the end."""
    length_n: Array
    """float64 [n']: ‖row‖ + error, rounded upwards."""
    error_n: Array
    """float64 [n']: ‖row − number‖, rounded upwards."""

    @property
    def gamma(self) -> float:
        """3γ of the module's text."""
        return 3 * self.number_nd.shape[1] * 2.0**-23


def rows_of(
    vectors_nd: Tensor,
    dtype: torch.dtype,
    extra_n: Array | None = None,
    multiple: int = 1,
    more_nc: Tensor | None = None,
    n_more: int = 0,
) -> Rows:
    """Vectors in the number type in which they are multiplied.

    Args:
        vectors_nd: float32 [n, d]. extra_n: float64 [n], what else each vector may be off by, as a length.
        multiple: rows are filled up to a multiple of it. more_nc: float32 [n, c], further numbers of each vector.
        n_more: columns of zeros at the end, at least.
    """
    n, d = vectors_nd.shape
    width = d + (0 if more_nc is None else more_nc.shape[1])
    low_type = dtype == torch.bfloat16
    size = (-(-n // multiple) * multiple, -(-(width + n_more) // _MULTIPLE) * _MULTIPLE if low_type else width + n_more)
    length_n, error_n = np.zeros(size[0]), np.zeros(size[0])
    needs_no_copy = size == (n, d) and not low_type and vectors_nd.is_contiguous()
    number_nd = vectors_nd if needs_no_copy else torch.zeros(size, dtype=dtype)
    for at in slices(n, max(1, (1 << 22) // d)):
        part_nd = vectors_nd[at] if more_nc is None else torch.cat([vectors_nd[at], more_nc[at]], dim=1)
        if not needs_no_copy:
            number_nd[at, :width] = part_nd
        length_n[at] = _length(part_nd)
        if low_type:
            error_n[at] = _length(part_nd - number_nd[at, :width].float()) + FLUSHED
    error_n[:n] += 0 if extra_n is None else extra_n
    return Rows(number_nd, length_n + error_n, error_n)


def _length(vectors_nd: Tensor) -> Array:
    """float64 [n]: ‖row‖, rounded upwards: by the error of d additions in float32, and by squares below its range."""
    length_n: Array = torch.linalg.vector_norm(vectors_nd, dim=1).cpu().numpy().astype(np.float64)
    d = vectors_nd.shape[1]
    return length_n * (1 + d * 2.0**-22) + d**0.5 * UNDERFLOW


def bound(left: Rows, right: Rows, n_blocks: int) -> Array:
    """float32 [r, n_blocks]: by how much a value can differ from the sum of the products, at most.

    Args:
        n_blocks: of `right`; row v of it is in block v mod n_blocks.
    """
    length_b, error_b = (
        values.reshape(-1, n_blocks).max(0).astype(np.float32) for values in (right.length_n, right.error_n)
    )
    length_r1, error_r1 = (values.astype(np.float32)[:, None] for values in (left.length_n, left.error_n))
    most_rb: Array = (error_r1 + np.float32(left.gamma) * length_r1) * length_b
    most_rb += length_r1 * error_b
    return most_rb * np.float32(1 + 2e-6)  # more than float32 rounds here


def split_number(number_n: Tensor) -> Tensor:
    """float32 [n, 3]: three numbers that bfloat16 holds, with a sum that differs by at most 2⁻²⁴ of the number."""
    columns, rest_n = [], number_n
    for _ in range(3):
        columns.append(rest_n.bfloat16().float())
        rest_n = rest_n - columns[-1]
    return torch.stack(columns, dim=1)


def write_bound(rows: Rows, *factor_n: Array) -> None:
    """Writes factors of `bound` into the last columns, which are spare, so that a product is never below the value.

    Each is rounded upwards by more than bfloat16 and the additions can take from it. On the right they are L_b and e_b,
    on the left e_a + 3γ L_a and L_a."""
    for at, one_n in enumerate(factor_n):
        column_n = torch.from_numpy((one_n * (1 + 2.0**-6)).astype(np.float32))
        rows.number_nd[:, at - len(factor_n)] = column_n


@cache
def has_units() -> bool:
    """Whether this processor has units for products of bfloat16 numbers, and they keep the bound."""
    queries = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    if not any(query is not None and query() for query in queries):
        return False
    rng = torch.Generator().manual_seed(0)
    left, right = (rows_of(torch.rand(64, 4096, generator=rng), torch.bfloat16) for _ in range(2))
    value_rn = left.number_nd.double() @ right.number_nd.double().T
    difference_rn = (value_rn - (left.number_nd @ right.number_nd.T).double()).abs()
    rounding_rn = OUTPUT[torch.bfloat16] * value_rn + torch.from_numpy(
        left.gamma * left.length_n[:, None] * right.length_n
    )
    return bool((difference_rn <= rounding_rn).all())


def quickest_dtype(device: str = "cpu") -> Literal["bfloat16", "float32"]:
    """The number type in which a model runs fastest: bfloat16, but on a processor without units for it float32, which
    is several times as fast there."""
    return "float32" if device == "cpu" and not has_units() else "bfloat16"

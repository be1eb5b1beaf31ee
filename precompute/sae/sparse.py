"""z of tokens of an SAE that keeps few features, without the dense z: on a CPU, for `topk`, `jumprelu` (BatchTopK too,
as SAELens saves it) and `gated`.

The large product only says which features can be active (products/rounding.py); those are multiplied again one by one.
So z depends on the token and the feature alone, and not on the batch, the number of threads or the number type.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from precompute.products.candidates import Pairs, winners
from precompute.products.pairs import pair_products
from precompute.products.rounding import split_number
from precompute.products.search import Table
from precompute.products.threads import in_threads
from precompute.sae.sae import SaeV
from precompute.utils.types import Array

ARCHITECTURES = ("topk", "jumprelu", "gated")
FEWEST = 8192
"""Features from which on it is faster. The rule looks at the SAE alone: the same SAE always gives the same z."""
PART = "encoder"


def applies(sae: SaeV) -> bool:
    """Whether z of this SAE is found so."""
    config = sae.sae.cfg
    rescales = bool(getattr(config, "rescale_acts_by_decoder_norm", False))
    is_sparse = sae.architecture != "topk" or 192 * int(config.k) <= sae.n_features
    return (
        sae.architecture in ARCHITECTURES
        and sae.n_features >= FEWEST
        and sae.device.type == "cpu"
        and is_sparse
        and not (rescales and sae.architecture != "topk")
    )


def sparse_encoder(sae: SaeV) -> SparseEncoder | None:
    """Made once of an SAE; None where this is not the way."""
    if sae.lacks_factor or not applies(sae):
        return None
    encoder: SparseEncoder = sae.derived.get(PART) or SparseEncoder(sae)
    sae.derived[PART] = encoder
    return encoder


class SparseEncoder:
    """What is made once of an SAE: its encoder's weights as rows, and in bfloat16."""

    def __init__(self, sae: SaeV) -> None:
        self.sae, module = sae, sae.sae
        self.weight_fd = module.W_enc.detach().T.contiguous()
        self.factor_f = torch.ones(sae.n_features)
        if sae.architecture == "topk" and sae._rescales:
            self.factor_f = module.W_dec.detach().norm(dim=-1)
        self.bias_f = (module.b_gate if sae.architecture == "gated" else module.b_enc).detach()
        self.table: Table | None = None
        self.unit = 1.0

    @cached_property
    def _above_f(self) -> Tensor:
        """What is added to x · w so that an active feature is above 0; of `topk` the bias."""
        if self.sae.architecture == "jumprelu":
            limit_f = self.sae.sae.threshold.detach().clamp(min=0)
            # The sum with the bias is rounded before it is compared.
            return self.bias_f - limit_f + 2.0**-21 * (self.bias_f.abs() + limit_f).nan_to_num(posinf=0)
        return self.bias_f

    def _table(self, x_td: Tensor) -> Table:
        """The bias stands in three columns beside the weights. They are measured in a unit that is about as long as a
        token, so that it makes neither side much longer: the bound grows with the length of both."""
        if self.table is None:
            self.unit = 2.0 ** float(x_td.norm(dim=1).median().clamp(2.0**-20, 2.0**20).log2().round())
            offset_f = self._above_f * self.factor_f / self.unit
            off_f = offset_f == -torch.inf  # switched off
            rows_fd = self.weight_fd * self.factor_f[:, None] if self._scaled else self.weight_fd
            rows_fd = torch.where(off_f[:, None], 0, rows_fd) if bool(off_f.any()) else rows_fd
            columns_f3 = split_number(torch.where(off_f, -1, offset_f))
            n_spare = 0 if self.sae.architecture == "topk" else 2
            self.table = Table(rows_fd, self.sae.products, PART, columns_f3, n_spare)
        return self.table

    @property
    def _scaled(self) -> bool:
        return bool((self.factor_f != 1).any())

    def encode(self, hidden_td: Tensor) -> tuple[Array, Array, Array]:
        """Active features of tokens [t, d]: (events of each token int64 [t], feature int64 [e] ascending inside a
        token, z float32 [e])."""
        x_td = self.sae.sae.process_sae_in(hidden_td.to(torch.float32))
        self.sae._clear_token_scales()
        if not len(x_td):
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
        step = min(self._table(x_td).step, -(-len(x_td) // torch.get_num_threads()))
        parts = in_threads(lambda low: self._part(x_td[low : low + step]), range(0, len(x_td), step))
        count_t, feature_e, z_e = (np.concatenate(kind) for kind in zip(*parts, strict=True))
        return count_t, feature_e, z_e

    @torch.inference_mode()
    def _part(self, x_td: Tensor) -> tuple[Array, Array, Array]:
        table = self._table(x_td)
        left_td = torch.cat([x_td, torch.full((len(x_td), 3), self.unit)], dim=1)
        k = int(getattr(self.sae.sae.cfg, "k", 0) or 0)
        top = self.sae.architecture == "topk"
        pairs = table.candidates(left_td, k)[0] if top else table.above_zero(left_td)
        z_p = self._activation(torch.from_numpy(pair_products(x_td, self.weight_fd, pairs)), pairs).numpy()
        if top:
            value_tk, col_tk = winners(pairs, z_p, len(x_td), k)
            row, rank = np.nonzero(value_tk > 0)
            order = np.lexsort((col_tk[row, rank], row))
            pairs, z_p = Pairs(row[order], col_tk[row, rank][order]), value_tk[row, rank][order]
        at = np.flatnonzero(z_p > 0)
        return np.bincount(pairs.row_p[at], minlength=len(x_td)), pairs.col_p[at], z_p[at]

    def _activation(self, product_p: Tensor, pairs: Pairs) -> Tensor:
        """float32 [p]: of `topk` before the ReLU, of the others z."""
        module: Any = self.sae.sae
        at = torch.from_numpy(pairs.col_p)
        before_p = product_p + self.bias_f[at]
        if self.sae.architecture == "topk":
            return before_p * self.factor_f[at]
        if self.sae.architecture == "jumprelu":
            return torch.where(before_p > module.threshold.detach()[at], before_p, 0).relu()
        magnitude_p = product_p * module.r_mag.detach()[at].exp() + module.b_mag.detach()[at]
        return torch.where(before_p > 0, magnitude_p, 0).relu()

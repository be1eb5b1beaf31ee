"""The logit lens: the tokens that a feature's decoder direction promotes and suppresses most."""

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from precompute.products.candidates import join, winners
from precompute.products.pairs import pair_products
from precompute.products.search import LARGEST, LOWEST, Table, by_blocks
from precompute.products.setting import Products
from precompute.utils.stats import unit
from precompute.utils.types import Array

N_LOGITS = 10
BLOCK_BYTES = 1 << 27
CHANCE = 0.05
_BLOCK = 128


def chance_limit(n_tokens: int) -> float:
    """What the largest |z| among `n_tokens` independent standard normal numbers exceeds in 5 % of all cases."""
    return float(norm.isf(-np.expm1(np.log1p(-CHANCE) / n_tokens) / 2))


def logit_lens(
    directions_fd: Array,
    alive_f: Array,
    norm_weight_d: Array | None,
    unembed_vd: Array,
    k: int = N_LOGITS,
    products: Products | None = None,
) -> dict[str, Array]:
    """The tokens that a feature's direction promotes and suppresses most, raw and centred (METHOD, *Directions*).

    Raw logit = unembedding · (final norm's weight ⊙ d_k / ‖d_k‖), minus its mean over the vocabulary. Centred: the raw
    logit minus the token's mean over the features that are alive, in units of its standard deviation over them.

    Args:
        directions_fd: decoder directions, float [F, d]. alive_f: bool [F], active on a token.
        norm_weight_d: of the final norm, None where it has none. unembed_vd: float [V, d].
        products: how the large products may be computed; it does not change the result.

    Returns:
        promoted, suppressed, raw_promoted, raw_suppressed: int64 [F, k] token ids, and with `_logit` after the name
        float32 [F, k]; informative: bool [F], whether its largest |centred logit| exceeds `chance_limit(V)`. Of equal
        logits the token with the lower id comes first.
    """
    k, products = min(k, len(unembed_vd)), products or Products()
    scaled_vd = unembed_vd if norm_weight_d is None else unembed_vd * norm_weight_d
    scaled_vd = np.array(scaled_vd, dtype=np.float32, order="C")
    scaled_vd -= scaled_vd.mean(0)
    unit_fd = unit(directions_fd.astype(np.float32))
    alive_nd = unit_fd[alive_f & unit_fd.any(1)]
    mean_v, deviation_v = logit_statistics(scaled_vd, alive_nd)
    mean_d = alive_nd.sum(0) / max(len(alive_nd), 1)
    unembed = torch.from_numpy(scaled_vd)
    table_raw = Table(unembed, products, "lens")
    # (logit − mean) / deviation is a product too: of the direction without the mean one and the row by its deviation.
    table_centred = Table(unembed / torch.from_numpy(deviation_v)[:, None], products, "lens, centred")
    slack = (len(mean_d) * 2.0**-23 + 2.0**-20) * (1 + float(np.linalg.norm(mean_d)))

    def search(low: int, high: int) -> dict[str, Array]:
        left_fd = unit_fd[low:high]
        n_rows, left = len(left_fd), torch.from_numpy(left_fd)
        centred = torch.from_numpy(left_fd - mean_d)
        several = table_raw.candidates(left, k, (LARGEST, LOWEST))
        several += table_centred.candidates(centred, k, (LARGEST, LOWEST), np.full(n_rows, slack))
        pairs = join(len(scaled_vd), several)
        logit_p = pair_products(left, unembed, pairs)
        values = {"raw_": logit_p, "": (logit_p - mean_v[pairs.col_p]) / deviation_v[pairs.col_p]}
        block: dict[str, Array] = {}
        for kind, value_p in values.items():
            for name, sign in (("promoted", 1), ("suppressed", -1)):
                value, block[f"{kind}{name}"] = winners(pairs, sign * value_p, n_rows, k)
                block[f"{kind}{name}_logit"] = sign * value
        return block

    blocks = by_blocks(search, table_raw, len(unit_fd))
    lens = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    extreme_f = np.maximum(lens["promoted_logit"][:, 0], -lens["suppressed_logit"][:, 0])
    return {**lens, "informative": extreme_f > chance_limit(len(scaled_vd))}


def logit_statistics(scaled_vd: Array, unit_nd: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each token's raw logit over n features, float32 [V]; the deviation is infinite
    where the logits of a token do not differ, so that it is never among the promoted ones.

    Args:
        scaled_vd: rows whose products with a unit direction are its raw logits, float32 [V, d]. unit_nd: float32.
    """
    n = max(len(unit_nd), 1)
    mean_d = unit_nd.sum(0) / n
    own_nd = unit_nd - mean_d
    covariance = torch.from_numpy(own_nd.T @ own_nd / n)
    variance_v = torch.empty(len(scaled_vd))
    for low in range(0, len(scaled_vd), 1 << 14):
        block_vd = torch.from_numpy(scaled_vd[low : low + (1 << 14)])
        variance_v[low : low + (1 << 14)] = ((block_vd @ covariance) * block_vd).sum(1)
    length_v = (scaled_vd * scaled_vd).sum(1)
    flat = variance_v.numpy() <= 1e-10 * np.maximum(length_v, 1e-30)
    return scaled_vd @ mean_d, np.sqrt(np.where(flat, np.inf, variance_v.numpy()))


def largest_values(value_rn: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(values [r, k] falling, their columns [r, k]) of each row's k largest; among equal ones any.

    Only the k blocks of columns with the largest maxima can hold them, so every other column is looked at only once: of
    49,152 columns that is four times as fast as `topk`."""
    n_blocks = value_rn.shape[1] // _BLOCK
    if n_blocks <= k:
        value_rk, at_rk = value_rn.topk(k)
        return value_rk, at_rk
    end = n_blocks * _BLOCK
    blocks_rbc = value_rn[:, :end].unflatten(1, (n_blocks, _BLOCK))
    which_rb1 = blocks_rbc.amax(2).topk(k).indices[..., None]
    left = torch.arange(end, value_rn.shape[1]).expand(len(value_rn), -1)
    column = torch.cat([(which_rb1 * _BLOCK + torch.arange(_BLOCK)).flatten(1), left], dim=1)
    value_rk, at_rk = value_rn.gather(1, column).topk(k)
    return value_rk, column.gather(1, at_rk)

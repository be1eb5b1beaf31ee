"""Step `index`: exact nearest neighbours of decoder directions and feature profiles, FAISS flat indexes of them and of
sample vectors; and the logit lens.

The sample vector (METHOD *Search*) is spelled out in `sample_vectors`, which stored samples and live
queries share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from precompute import map as feature_map
from precompute.files import atomic_write
from precompute.omega import unit
from precompute.runs import strongest
from precompute.store.collected import Collected, load_step, save_step
from precompute.store.reader import Store
from precompute.store.schema import IMAGE, MODALITIES, SPACES, TEXT
from precompute.weigh import KEPT_MAXIMA

Array = NDArray[Any]

WIDTH = 256  # of a projected sample vector
N_NEIGHBOURS = 10
N_LOGITS = 10
PROJECTION_SEED = 20250217  # a constant of the format: live queries must draw the same signs
_BLOCK_BYTES = 1 << 27
_BLOCK = 128


@lru_cache(maxsize=2)
def projection(n_features: int) -> Array:
    """float32 [F, 256] of ±1/16: the signs are the bits of NumPy's PCG64(20250217), `integers(0, 2, (F,
    256))`.
    """
    rng = np.random.Generator(np.random.PCG64(PROJECTION_SEED))
    signs = rng.integers(0, 2, (n_features, WIDTH), dtype=np.int8)
    return (signs.astype(np.float32) * 2 - 1) / np.float32(np.sqrt(WIDTH))


def sample_vectors(maxima: csr_matrix, p999: Array, n_with: Array, n_samples: int) -> Array:
    """Unit vectors float32 [n, 256] of samples in one modality; zero where nothing is active.

    Of each sample the 256 maxima largest relative to p99.9 count. Their weight is log(1 + z / p99.9) ·
    log(N / n), n the samples with an active token of that modality (n = 0 left out); scaled to length 1,
    projected, scaled again.

    Args:
        maxima: largest z, CSR [n, F], features rising in a row.
        n_with: samples per feature, of this modality.
    """
    row = np.repeat(np.arange(maxima.shape[0]), np.diff(maxima.indptr))
    k = maxima.indices
    ratio = maxima.data / np.maximum(p999[k], 1e-30)
    kept = strongest(ratio, maxima.indptr, KEPT_MAXIMA) & (n_with[k] > 0)
    row, k, ratio = row[kept], k[kept], ratio[kept]
    weight = np.log1p(ratio) * np.log(n_samples / np.maximum(n_with[k], 1))
    length = np.sqrt(np.bincount(row, weight**2, minlength=maxima.shape[0]))
    weight = np.divide(weight, length[row], out=np.zeros_like(weight), where=length[row] > 0)
    sparse = csr_matrix((weight.astype(np.float32), (row, k)), shape=maxima.shape)
    vectors: Array = unit(np.asarray(sparse @ projection(maxima.shape[1]), dtype=np.float32))
    return vectors


def sample_vector(features: Array, z: Array, modality: str, store: Store) -> Array:
    """The vector [256] of a live query, as the store's own samples have it.

    Args:
        features: active features, rising. z: the largest activation of each on the query's tokens of
        `modality`.
    """
    table = store.feature_table
    maxima = csr_matrix(
        (np.asarray(z, np.float64), features, [0, len(features)]), shape=(1, store.n_features)
    )
    vectors = sample_vectors(maxima, table["p999"], table[f"samples_{modality}"], store.n_samples)
    return np.asarray(vectors[0])


def all_sample_vectors(data: Collected, weigh: Mapping[str, Array], modality: int) -> Array:
    """float32 [N, 256]: every sample in one modality."""
    vectors = np.zeros((data.n_samples, WIDTH), dtype=np.float32)
    for low, high in data.blocks():
        maxima = data.maxima_in(np.arange(low, high), modality)
        vectors[low:high] = sample_vectors(maxima, weigh["p999"], weigh["samples"][:, modality], data.n_samples)
    return vectors


def flat_index(vectors: Array) -> Any:
    """Exact inner-product index with float16 storage; entry i is feature or sample row i."""
    index = faiss.IndexScalarQuantizer(
        vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    index.train(vectors[:1])
    index.add(vectors)
    return index


def write_index(vectors: Array, path: Path) -> None:
    """`flat_index`'s file. Python writes it: the library's own writer says nothing of a disk that is full at the end,
    and knows names in the C library's encoding only."""
    with atomic_write(path) as file:
        faiss.write_index(flat_index(vectors), faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]


def profiles(data: Collected, weigh: Mapping[str, Array]) -> Array:
    """Unit vectors float32 [F, d]: modality-centred mean of each feature's top h of D_s; zero where it has
    none.
    """
    d = data.resid.shape[1]
    top = weigh["top_resid"]
    found = np.zeros((data.n_features, d), dtype=np.float32)
    step = max(1, _BLOCK_BYTES // (4 * top.shape[2] * d))
    live = np.flatnonzero((top >= 0).any((1, 2)))
    for low in range(0, len(live), step):
        block = live[low : low + step]
        total_fd = np.zeros((len(block), d))
        for m in (TEXT, IMAGE):
            known_fk = top[block, m] >= 0
            h_fkd = torch.from_numpy(data.resid[np.maximum(top[block, m], 0)]).view(torch.bfloat16).float()
            sum_fd = torch.einsum("fkd,fk->fd", h_fkd, torch.from_numpy(known_fk).float()).numpy()
            total_fd += sum_fd - known_fk.sum(1)[:, None] * weigh["mu"][m]
        found[block] = unit(total_fd)
    return found


def nearest(vectors: Array, k: int = N_NEIGHBOURS) -> tuple[Array, Array]:
    """(other int64 [F, k], cosine float32 [F, k]) by cosine, itself left out; −1 for zero vectors and
    beyond the end.
    """
    live = np.flatnonzero(np.any(vectors, axis=1))
    other = np.full((len(vectors), k), -1, dtype=np.int64)
    cosine = np.zeros((len(vectors), k), dtype=np.float32)
    n = min(k, len(live) - 1)
    if n < 1:
        return other, cosine
    some = torch.from_numpy(vectors[live])
    step = max(1, _BLOCK_BYTES // (4 * len(live)))
    for low in range(0, len(live), step):
        cosine_rn = some[low : low + step] @ some.T
        row_r = torch.arange(len(cosine_rn))
        cosine_rn[row_r, low + row_r] = -torch.inf
        value, at = largest(cosine_rn, n)
        other[live[low : low + step], :n] = live[at.numpy()]
        cosine[live[low : low + step], :n] = value.numpy()
    return other, cosine


def largest(value_rn: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(values [r, k] falling, their columns [r, k]) of each row's k largest; among equal ones any.

    Only the k blocks of columns with the largest maxima can hold them, so the rest is looked at once and no more:
    of 49,152 columns that is four times as fast as `topk`."""
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


def logit_lens(
    directions_fd: Array, norm_weight_d: Array | None, unembed_vd: Array, k: int = N_LOGITS
) -> dict[str, Array]:
    """The tokens a feature's direction promotes and suppresses most.

    Logit = unembedding · (final norm's weight ⊙ d_k / ‖d_k‖), minus its mean over the vocabulary.

    Returns:
        promoted, suppressed: int64 [F, k] token ids; promoted_logit, suppressed_logit: float32 [F, k].
    """
    k = min(k, len(unembed_vd))
    scaled_vd = unembed_vd if norm_weight_d is None else unembed_vd * norm_weight_d
    scaled_vd = np.ascontiguousarray(scaled_vd, dtype=np.float32)
    scaled_vd -= scaled_vd.mean(0)
    directions = torch.from_numpy(unit(directions_fd.astype(np.float32)))
    unembed = torch.from_numpy(scaled_vd)
    found: dict[str, list[Array]] = {
        n: [] for n in ("promoted", "promoted_logit", "suppressed", "suppressed_logit")
    }
    step = max(1, _BLOCK_BYTES // (4 * len(scaled_vd)))
    for low in range(0, len(directions), step):
        logit_fv = directions[low : low + step] @ unembed.T
        for name, sign in (("promoted", 1), ("suppressed", -1)):
            value, at = largest(logit_fv if sign == 1 else logit_fv.neg_(), k)
            found[name].append(at.numpy())
            found[f"{name}_logit"].append(sign * value.numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def run(part: Path, manifest: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Step entry. Options: `directions` (callable → float [F, d]), `logit_lens` (callable → (norm weight
    [d] or None, unembedding [V, d])) or None."""
    data, weigh = Collected(part, manifest), load_step(part, "weigh")
    folder = part / "index"
    folder.mkdir(exist_ok=True)
    directions = np.asarray(options["directions"](), dtype=np.float32)
    lens: Callable[[], tuple[Array | None, Array]] | None = options.get("logit_lens")
    decoder = unit(directions)
    others, cosines = nearest(decoder)
    with ThreadPoolExecutor(1) as beside:  # the map runs on one core, the rest on all
        drawn = beside.submit(feature_map.write, part, decoder, others, weigh)
        profile = profiles(data, weigh)
        profile_others, profile_cosines = nearest(profile)
        save_step(
            part, "index",
            decoder_other=others, decoder_cosine=cosines,
            profile_other=profile_others, profile_cosine=profile_cosines,
        )  # fmt: skip
        save_step(part, "logits", **(logit_lens(directions, *lens()) if lens is not None else {}))
        for name, vectors in zip(SPACES, (decoder, profile), strict=True):
            write_index(vectors, folder / f"{name}.faiss")
        for m, name in enumerate(MODALITIES):
            vectors = all_sample_vectors(data, weigh, m)
            write_index(vectors, folder / f"sample_{name}.faiss")
        drawn.result()
    return {"projection": {"width": WIDTH, "seed": PROJECTION_SEED}}

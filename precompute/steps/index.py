"""Step `index`: exact nearest neighbours of centred decoder directions and feature profiles, FAISS flat indexes of them
and of sample vectors; and with them two maps (feature_map.py) and the logit lens (sae/logit_lens.py).

Sample vectors are made by store/search.py, for stored samples and live queries alike.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from precompute.products.search import largest_products
from precompute.products.setting import Products
from precompute.sae.directions import CentredDirections, centre
from precompute.sae.logit_lens import BLOCK_BYTES, chance_limit, logit_lens
from precompute.steps.feature_map import MapLayout, layout_pool
from precompute.store import mapfile
from precompute.store.directions.vectors import MEAN, SCALE, SCALES
from precompute.store.making.unfinished import Collected, load_step, save_step
from precompute.store.schema import IMAGE, MODALITIES, NEIGHBOUR_SPACES, TEXT, VERDICTS
from precompute.store.search import PROJECTION_SEED, WIDTH, sample_vectors
from precompute.utils import memory
from precompute.utils.files import atomic_write, new_array
from precompute.utils.stats import unit
from precompute.utils.types import Array

N_NEIGHBOURS = 10
BLOCK = 1 << 16
"""Vectors that are taken into an index at a time."""


def all_sample_vectors(data: Collected, weigh: Mapping[str, Array], modality: int) -> Array:
    """float32 [N, 256]: every sample in one modality, mapped to a file of the unfinished store; the next call writes
    the same file. A kilobyte a sample would fill the memory."""
    vectors = new_array(data.folder / "sample_vectors.npy", np.float32, (data.n_samples, WIDTH))
    for low, high in data.blocks():
        maxima = data.maxima_in(np.arange(low, high), modality)
        vectors[low:high] = sample_vectors(maxima, weigh["p999"], weigh["samples"][:, modality], data.n_samples)
        memory.release(vectors)
    return vectors


def flat_index(vectors: Array) -> Any:
    """Exact inner-product index with float16 storage; entry i is feature or sample row i."""
    index = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[:1])
    for low in range(0, len(vectors), BLOCK):
        index.add(vectors[low : low + BLOCK])
        memory.release(vectors)
    return index


def write_index(vectors: Array, path: Path) -> None:
    """`flat_index`'s file. Python writes it: the library's own writer says nothing of a disk that is full at the end,
    and knows names in the C library's encoding only."""
    with atomic_write(path) as file:
        faiss.write_index(flat_index(vectors), faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]


def profiles(data: Collected, weigh: Mapping[str, Array]) -> Array:
    """Unit vectors float32 [F, d]: mean of h on each feature's strongest tokens of D_s, each less the mean h of its
    modality; zero where a feature has no such token."""
    d = data.resid.shape[1]
    resid_fmk = weigh["top_resid"]
    vectors = np.zeros((data.n_features, d), dtype=np.float32)
    step = max(1, BLOCK_BYTES // (4 * resid_fmk.shape[2] * d))
    features = np.flatnonzero((resid_fmk >= 0).any((1, 2)))
    for low in range(0, len(features), step):
        block = features[low : low + step]
        total_fd = np.zeros((len(block), d))
        for m in (TEXT, IMAGE):
            has_token_fk = resid_fmk[block, m] >= 0
            h_fkd = torch.from_numpy(data.resid[np.maximum(resid_fmk[block, m], 0)]).view(torch.bfloat16).float()
            sum_fd = torch.einsum("fkd,fk->fd", h_fkd, torch.from_numpy(has_token_fk).float()).numpy()
            total_fd += sum_fd - has_token_fk.sum(1)[:, None] * weigh["mu"][m]
        vectors[block] = unit(total_fd)
    return vectors


def nearest(
    vectors: Array, k: int = N_NEIGHBOURS, products: Products | None = None, part: str = "neighbours"
) -> tuple[Array, Array]:
    """(neighbours int64 [F, k], their cosines float32 [F, k]): the nearest vectors of each by cosine, itself left out,
    of equal ones the lower row first; −1 for zero vectors and beyond the end.

    Args:
        products: how the large product may be computed; it does not change the result. part: its name in run.json.
    """
    nonzero_rows = np.flatnonzero(np.any(vectors, axis=1))
    neighbours_fk = np.full((len(vectors), k), -1, dtype=np.int64)
    cosine_fk = np.zeros((len(vectors), k), dtype=np.float32)
    n = min(k, len(nonzero_rows) - 1)
    if n < 1:
        return neighbours_fk, cosine_fk
    nonzero_nd = torch.from_numpy(vectors[nonzero_rows])
    cosine_fk[nonzero_rows, :n], row_nk = largest_products(nonzero_nd, n, products or Products(), part, itself=False)
    neighbours_fk[nonzero_rows, :n] = nonzero_rows[row_nk]
    return neighbours_fk, cosine_fk


def write_directions(folder: Path, directions: CentredDirections) -> None:
    """What gives a raw direction back from `decoder.faiss`: the mean, and two lengths of each feature."""
    scale = np.zeros(len(directions.length_f), SCALE)
    scale["length"], scale["distance"] = directions.length_f, directions.distance_f
    for name, array in ((MEAN, directions.mean_d), (SCALES, scale)):
        np.save(folder / name, array)


def run(part: Path, manifest: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Step entry. Options: `directions` (callable → float [F, d]), `logit_lens` (callable → (norm weight
    [d] or None, unembedding [V, d])) or None, `products`."""
    data, weigh = Collected(part, manifest), load_step(part, "weigh")
    folder = part / "index"
    folder.mkdir(exist_ok=True)
    directions = np.asarray(options["directions"](), dtype=np.float32)
    lens: Callable[[], tuple[Array | None, Array]] | None = options.get("logit_lens")
    products: Products = options.get("products") or Products()
    is_alive_f = weigh["verdict"] != VERDICTS.index("dead")
    centred = centre(directions, is_alive_f)
    decoder = centred.unit_fd
    neighbours_fk, cosine_fk = nearest(decoder, products=products)
    # The maps run on one core each, all else on all.
    with layout_pool(int(is_alive_f.sum())) as pool:
        decoder_map = MapLayout.begin(pool, decoder, neighbours_fk, weigh)
        profile = profiles(data, weigh)
        profile_neighbours_fk, profile_cosine_fk = nearest(profile, products=products, part="neighbours of profiles")
        has_profile: Array = np.any(profile, axis=1)
        profile_map = MapLayout.begin(pool, profile, profile_neighbours_fk, weigh, has_profile)
        save_step(
            part,
            "index",
            decoder_neighbours=neighbours_fk,
            decoder_cosine=cosine_fk,
            mean_cosine=centred.mean_cosine_f,
            profile_neighbours=profile_neighbours_fk,
            profile_cosine=profile_cosine_fk,
        )
        summary: dict[str, Any] = {"projection": {"width": WIDTH, "seed": PROJECTION_SEED}}
        logits: dict[str, Array] = {}
        if lens is not None:
            norm_weight, unembedding = lens()
            logits = logit_lens(directions, is_alive_f, norm_weight, unembedding, products=products)
            n_tokens = len(unembedding)
            summary["lens"] = {"n_tokens": n_tokens, "chance_limit": round(chance_limit(n_tokens), 4)}
        save_step(part, "logits", **logits)
        for name, vectors in zip(NEIGHBOUR_SPACES, (decoder, profile), strict=True):
            write_index(vectors, folder / f"{name}.faiss")
        write_directions(folder, centred)
        for m, name in enumerate(MODALITIES):
            vectors = all_sample_vectors(data, weigh, m)
            write_index(vectors, folder / f"sample_{name}.faiss")
        maps = decoder_map.write(part / mapfile.NAME, weigh)
        maps["profile"] = profile_map.write(part / mapfile.PROFILE_NAME, weigh)
        return {**summary, "map": maps}

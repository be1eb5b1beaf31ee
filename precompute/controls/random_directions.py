"""Random directions of the residual stream in the place of features, each as often active as one of them (METHOD, *Pair
evidence*).

Where their share of passes is high, the test measures the residual stream, and not what the SAE has found in it.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix

from precompute.controls.sides import Sides
from precompute.data.batches import OVERHEAD, make_plan
from precompute.errors import SaevxError
from precompute.live.engine import load_engine
from precompute.live.originals import Originals
from precompute.model.batch import Pair
from precompute.model.calibration import mark_sinks, token_norms
from precompute.options.controls import ControlsOptions
from precompute.sae.encode import Scale
from precompute.steps.evidence.pair_evidence import Evidence, can_be_tested, evidence_of
from precompute.store.histogram import EDGES, unpack
from precompute.store.making.verify_evidence import delta
from precompute.store.reader import Store
from precompute.store.schema import IMAGE, TEXT
from precompute.store.sql import fetch_plain
from precompute.utils.progress import progress_bar
from precompute.utils.stats import unit
from precompute.utils.types import Array

MOST = 1000
"""Directions at most: features beyond are left out by a seeded draw."""
MOST_TOKENS = 1 << 16
"""Tokens of a modality, about, from which thresholds are read: evenly from every pair."""


class Projections(NamedTuple):
    """h · direction of n pairs and k directions; -inf where a pair has no such tokens."""

    strongest_mnk: Array
    """float32 [2, n, k]: the largest on each pair's text tokens, and on its image tokens."""
    alone_nk: Array
    """float32 [n, k]: the largest on the text tokens of a text that is run without its image."""
    token_mtk: list[Array]
    """Two of float32 [t, k]: text and image tokens of all pairs, or an even choice of them."""


class Tested(NamedTuple):
    """Directions as often active as the features, on the same pairs; both in one order."""

    n_pairs: int
    feature: Array
    """int64 [k]: the features whose rates the directions have."""
    of_directions: Evidence
    of_text_alone: Evidence
    """Of the directions, with the texts run without their images."""


class TooFewPairsError(SaevxError):
    """No feature fires in enough pairs."""


def random_directions(store: Store, o: ControlsOptions) -> Tested:
    """Run the store's pairs through its model again and test one direction for each feature that can be tested.

    Raises:
        TooFewPairsError: no feature can be tested on so few pairs.
        SaevxError: the model, the SAE or the data are not found, or are not those of the store.
    """
    sides = Sides.read(store, o.samples)
    rng = np.random.default_rng(o.seed)
    features = np.flatnonzero(can_be_tested(sides.counts()))
    if not len(features):
        raise TooFewPairsError(f"No feature fires in enough of {len(sides.row)} pairs to be tested: raise --samples.")
    if len(features) > MOST:
        features = np.sort(rng.choice(features, MOST, replace=False))
    directions_kd = unit(rng.standard_normal((len(features), int(store.manifest["model"]["d_model"]))))
    along_directions = projections(store, o, sides.row, directions_kd)
    rate_mk = rates(store, features)
    limit_mk = [as_often(along_directions.token_mtk[m], rate_mk[m]) for m in (TEXT, IMAGE)]
    text, image = (csr_matrix(along_directions.strongest_mnk[m] >= limit_mk[m]) for m in (TEXT, IMAGE))
    on_text_alone = csr_matrix(along_directions.alone_nk >= limit_mk[TEXT])
    with_image, text_alone = (sides._replace(text=on_text, image=image).counts() for on_text in (text, on_text_alone))
    return Tested(
        len(sides.row),
        features,
        evidence_of(with_image, can_be_tested(with_image)),
        evidence_of(text_alone, can_be_tested(text_alone)),
    )


def rates(store: Store, features: Array) -> Array:
    """float64 [2, k]: the share of the text tokens, and of the image tokens, on which each feature is above δ."""
    hist = {k: unpack(blob) for k, blob in fetch_plain(store.engine, "SELECT id, hist FROM feature_details")}
    above_kmb = EDGES[:-1] * store.events.unit >= delta(store)[features][:, :, None]
    n_mk = (np.stack([hist[k] for k in features.tolist()]) * above_kmb).sum(2).T
    tokens = store.manifest["tokens"]
    return np.asarray(n_mk / np.array([[tokens["text"]], [tokens["image"]]]))


def as_often(token_tk: Array, rate_k: Array) -> Array:
    """float32 [k]: the value that this share of the tokens [t, k] reaches, of each direction; one token at least."""
    n_k = np.maximum(np.round(rate_k * len(token_tk)).astype(np.int64), 1)
    return np.array([np.partition(token_tk[:, k], -n)[-n] for k, n in enumerate(n_k.tolist())], np.float32)


@torch.inference_mode()
def projections(store: Store, o: ControlsOptions, rows: Array, directions_kd: Array) -> Projections:
    """Runs these rows of the store through the model, each text also without its image: how far h lies along each
    direction.

    Args:
        rows: int64 [n]. directions_kd: float64 [k, d], of length 1.
    """
    mllm, _ = load_engine(o, store.manifest, full=False)
    originals, scale = Originals(store), Scale.from_manifest(store.manifest)
    directions_dk = torch.from_numpy(directions_kd.astype(np.float32)).T
    strongest_mnk = np.full((2, len(rows), len(directions_kd)), -np.inf, np.float32)
    alone_nk = np.full(strongest_mnk.shape[1:], -np.inf, np.float32)
    tokens: list[list[Array]] = [[], []]

    def project(pairs: list[Pair]) -> list[tuple[Array, Array]]:
        """Of each pair's tokens: their kind, and float32 [t, k]."""
        batch = mllm.prepare(pairs)
        hidden_bsd = mllm.hidden(batch)
        result = []
        for b, length in enumerate(batch.length_b.tolist()):
            hidden_td = hidden_bsd[b, :length].float()
            kind_t = mark_sinks(batch.modality_bs[b, :length], token_norms(hidden_td), scale.sink_norm)
            result.append((kind_t, (hidden_td.cpu() @ directions_dk).numpy()))
        return result

    with progress_bar("random directions", len(rows), "pairs") as progress:
        for members in plan_batches(store, rows, o):
            pairs = [originals.pair(int(rows[i])) for i in members]
            texts = project([Pair(pair.text, []) for pair in pairs])
            for i, (kind_t, along_tk), (alone_t, alone_tk) in zip(members, project(pairs), texts, strict=True):
                for m in (TEXT, IMAGE):
                    of_kind_tk = along_tk[kind_t == m]
                    strongest_mnk[m, i] = of_kind_tk.max(0, initial=-np.inf)
                    stride = max(1, math.ceil(len(of_kind_tk) * len(rows) / MOST_TOKENS))
                    tokens[m].append(of_kind_tk[::stride])
                alone_nk[i] = alone_tk[alone_t == TEXT].max(0, initial=-np.inf)
            progress.update(len(members))
    return Projections(strongest_mnk, alone_nk, [np.concatenate(parts) for parts in tokens])


def plan_batches(store: Store, rows: Array, o: ControlsOptions) -> list[list[int]]:
    """Places in `rows` by batches of like length."""
    n_tokens = dict(fetch_plain(store.engine, "SELECT row, n_text + n_image FROM samples"))
    length_n = np.array([n_tokens[row] for row in rows.tolist()], np.int64) + OVERHEAD
    ids = rows.astype(str).tolist()
    plan = make_plan(ids, length_n, batch_tokens=o.batch_tokens, shard_samples=len(rows), ds=0, seed=o.seed)
    return list(plan.batches)

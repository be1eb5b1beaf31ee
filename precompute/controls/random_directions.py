"""Random directions of the residual stream in the place of features, each on as many texts and images as one of them.

Where their share of passes is high, the test measures the residual stream, and not what the SAE has found in it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix

from precompute.controls.sides import Sides
from precompute.data.batches import OVERHEAD, make_plan
from precompute.live.engine import load_engine
from precompute.live.originals import Originals
from precompute.model.calibration import mark_sinks, token_norms
from precompute.options.controls import ControlsOptions
from precompute.sae.encode import Scale
from precompute.steps.evidence.pairs import Evidence, can_be_tested, measured
from precompute.store.reader import Store
from precompute.store.schema import IMAGE, TEXT
from precompute.store.sql import fetch_plain
from precompute.utils.progress import progress_bar
from precompute.utils.stats import unit
from precompute.utils.types import Array

MOST = 1000
"""Directions at most: features beyond are left out by a seeded draw."""


class Tested(NamedTuple):
    """Directions beside the features whose rates they have, on the same pairs; both in one order."""

    n_pairs: int
    of_features: Evidence
    of_directions: Evidence


def random_directions(store: Store, o: ControlsOptions) -> Tested:
    """Run the store's pairs through its model again and test one direction for each feature that can be tested.

    Raises:
        SaevxError: the model, the SAE or the data are not found, or are not those of the store.
    """
    sides = Sides.read(store, o.samples)
    rng = np.random.default_rng(o.seed)
    features = np.flatnonzero(can_be_tested(sides.counts()))
    if len(features) > MOST:
        features = np.sort(rng.choice(features, MOST, replace=False))
    text, image = sides.text[:, features], sides.image[:, features]
    own = sides._replace(text=text, image=image)
    directions_kd = unit(rng.standard_normal((len(features), int(store.manifest["model"]["d_model"]))))
    strongest_mnk = projections(store, o, sides.row, directions_kd)
    by_chance = own._replace(
        text=as_often(strongest_mnk[TEXT], np.asarray(text.sum(0)).ravel()),
        image=as_often(strongest_mnk[IMAGE], np.asarray(image.sum(0)).ravel()),
    )
    tested = np.ones(len(features), bool)
    return Tested(len(sides.row), measured(own.counts(), tested), measured(by_chance.counts(), tested))


def projections(store: Store, o: ControlsOptions, rows: Array, directions_kd: Array) -> Array:
    """float32 [2, n, k]: the largest h · direction on each pair's text tokens, and on its image tokens."""
    mllm, _ = load_engine(o.from_store, store.manifest, full=False)
    originals, scale = Originals(store), Scale.from_manifest(store.manifest)
    directions = torch.from_numpy(directions_kd.astype(np.float32)).T
    result = np.full((2, len(rows), len(directions_kd)), -np.inf, np.float32)
    n_tokens = dict(fetch_plain(store.engine, "SELECT row, n_text + n_image FROM samples"))
    length_n = np.array([n_tokens[row] for row in rows.tolist()], np.int64) + OVERHEAD
    plan = make_plan(
        rows.astype(str).tolist(), length_n, batch_tokens=o.batch_tokens, shard_samples=len(rows), ds=0, seed=o.seed
    )
    with progress_bar("random directions", len(rows), "pairs") as progress:
        for members in plan.batches:
            batch = mllm.prepare([originals.pair(int(rows[i])) for i in members])
            hidden_bsd = mllm.hidden(batch)
            for b, i in enumerate(members):
                hidden_td = hidden_bsd[b, : batch.length_b[b]].float()
                kind_t = batch.modality_bs[b, : batch.length_b[b]]
                modality_t = mark_sinks(kind_t, token_norms(hidden_td), scale.sink_norm)
                along_tk = (hidden_td.cpu() @ directions).numpy()
                for m in (TEXT, IMAGE):
                    result[m, i] = along_tk[modality_t == m].max(0, initial=-np.inf)
            progress.update(len(members))
    return result


def as_often(strongest_nk: Array, n_k: Array) -> csr_matrix:
    """bool [n, k]: the n_k pairs on which each direction is strongest; of equal ones the first."""
    order_nk = np.argsort(-strongest_nk, axis=0, kind="stable")
    on_nk = np.zeros(strongest_nk.shape, bool)
    for k, n in enumerate(n_k.tolist()):
        on_nk[order_nk[:n, k], k] = True
    return csr_matrix(on_nk)

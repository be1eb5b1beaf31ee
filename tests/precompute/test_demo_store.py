"""Reference (b) on the real demo: an independent float64 SAE on the pass's own float32 h."""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import load_file

from precompute.data import open_picture
from precompute.model import IMAGE, Pair
from precompute.pipeline import Options, Run
from precompute.store.reader import Store
from tests.conftest import Demo

N_BATCHES = 2


def test_stored_events_are_the_sae_in_float64(demo: Demo) -> None:
    """Values agree to 1e-3, or 1e-4 of the feature's p99.9; a token that is active in one only lies that near
    the threshold. Needs a ReLU SAE, as the demo's is."""
    store = Store.open(demo.store)
    config = json.loads((demo.sae / "cfg.json").read_text())
    assert config["architecture"] == "standard" and config["normalize_activations"] == "none"
    weights = {name: w.astype(np.float64) for name, w in load_file(demo.sae / "sae_weights.safetensors").items()}
    told = store.manifest["options"]
    run = Run(
        Options(
            data=str(demo.data), model=str(demo.model), sae=str(demo.sae), out=demo.root / "none",
            batch_tokens=told["batch_tokens"], ds=told["ds"], seed=told["seed"],
        )
    )  # fmt: skip
    data, plan = run.data_and_plan
    row_of = {sample_id: row for row, sample_id in enumerate(ids_of(store))}
    p999_f = store_p999(store)
    n_compared = 0
    for batch in plan.batches[:N_BATCHES]:
        rows = [data.rows[i] for i in batch]
        made = run.mllm.prepare([Pair(r.text, [open_picture(p).image for p in r.images]) for r in rows])
        hidden_bsd = run.mllm.hidden(made).double().numpy()
        for b, row in enumerate(rows):
            stored = store.events.sample(row_of[row.sample_id])
            h_td = hidden_bsd[b, : made.length_b[b]]
            if config["apply_b_dec_to_input"]:
                h_td = h_td - weights["b_dec"]
            z_tf = np.maximum(h_td @ weights["W_enc"] + weights["b_enc"], 0)
            z_tf[stored.modality_t > IMAGE] = 0
            found_tf = np.zeros_like(z_tf)
            found_tf[np.repeat(np.arange(len(z_tf)), np.diff(stored.offset_t)), stored.feature_e] = stored.z_e
            error_tf, near_f = np.abs(found_tf - z_tf), np.maximum(1e-4 * p999_f, 1e-4 * (p999_f == 0))
            assert (error_tf <= np.maximum(1e-3 * z_tf, near_f)).all()
            n_compared += int((z_tf > 0).sum())
    store.close()
    assert n_compared > 10_000


def ids_of(store: Store) -> list[str]:
    from sqlalchemy import select

    from precompute.store import schema

    with store.engine.connect() as conn:
        query = select(schema.samples.c.sample_id).order_by(schema.samples.c.row)
        return [str(sample_id) for (sample_id,) in conn.execute(query)]


def store_p999(store: Store) -> np.ndarray:
    from sqlalchemy import select

    from precompute.store import schema

    with store.engine.connect() as conn:
        query = select(schema.features.c.p999).order_by(schema.features.c.id)
        return np.array([value or 0.0 for (value,) in conn.execute(query)])

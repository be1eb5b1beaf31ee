"""Reference (b) on the real demo: an independent float64 SAE on the pass's own float32 h."""

import json

import numpy as np
from safetensors.torch import load_file

from precompute.collect.session import Session
from precompute.data.images import open_image
from precompute.model.batch import IMAGE, Pair
from precompute.options.precompute import PrecomputeOptions
from precompute.store.reader import Store
from tests.helpers.demo import Demo

N_BATCHES = 2


def test_stored_events_are_the_sae_in_float64(demo: Demo) -> None:
    """Values agree to 1e-3, or 1e-4 of the feature's p99.9; a token that is active in one only lies that near
    the threshold. Needs a ReLU SAE, as the demo's is."""
    store = Store.open(demo.store)
    config = json.loads((demo.sae / "cfg.json").read_text())
    assert config["architecture"] == "standard" and config["normalize_activations"] == "none"
    weights = {name: w.double().numpy() for name, w in load_file(demo.sae / "sae_weights.safetensors").items()}
    options = store.manifest["options"]
    run = Session(
        PrecomputeOptions(
            data=str(demo.data),
            model=str(demo.model),
            sae=str(demo.sae),
            out=demo.root / "none",
            batch_tokens=options["batch_tokens"],
            ds=options["ds"],
            seed=options["seed"],
        )
    )
    data, plan = run.data_and_plan
    row_of = {sample_id: row for row, sample_id in enumerate(ids_of(store))}
    p999_f = store_p999(store)
    n_compared = 0
    for batch in plan.batches[:N_BATCHES]:
        rows = [data.rows[i] for i in batch]
        made = run.mllm.prepare([Pair(r.text, [open_image(p).image for p in r.images]) for r in rows])
        hidden_bsd = run.mllm.hidden(made).double().numpy()
        for b, row in enumerate(rows):
            stored = store.events.of(row_of[row.sample_id])
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


def test_counts_and_top_lists_follow_from_the_stored_events(demo: Demo) -> None:
    """Reference (a): one plain sort of all events gives every count and every top example."""
    store = Store.open(demo.store)
    row_e, position_e, modality_e = places(store)
    feature_e, value_e = store.events.event_feature.astype(np.int64), np.asarray(store.events.event_value)
    count = np.zeros((store.n_features, 2), np.int64)
    np.add.at(count, (feature_e, modality_e), 1)
    counts = rows(store, "SELECT n_text, n_image FROM features ORDER BY id")
    assert np.array_equal(np.array(counts), count)
    order = np.lexsort((position_e, row_e, -value_e.astype(np.float64), modality_e, feature_e))
    columns = (feature_e * 2 + modality_e, row_e, position_e)
    strongest: dict[int, dict[int, int]] = {}
    for group, row, position in zip(*(column[order].tolist() for column in columns), strict=True):
        strongest.setdefault(group, {}).setdefault(row, position)
    listed: dict[int, list[tuple[int, ...]]] = {}
    query = "SELECT feature * 2 + modality, row, position, n_same FROM examples WHERE band = -1"
    for group, *example in rows(store, f"{query} ORDER BY feature, modality, rank"):
        listed.setdefault(group, []).append(tuple(example))
    assert listed.keys() == strongest.keys()
    n_folded = 0
    for group, examples in listed.items():
        collected = list(strongest[group].items())[:40]
        at = [collected.index((row, position)) for row, position, _ in examples]
        assert at[0] == 0 and at == sorted(at) and len(examples) <= 20
        counted = sum(1 + n_same for _, _, n_same in examples)
        # Whoever stands before the last of them is listed or counted, and of a short list everybody.
        assert at[-1] < counted <= len(collected) and (len(examples) == 20 or counted == len(collected))
        n_folded += counted - len(examples)
    assert n_folded > 100  # captions are made of a few patterns
    store.close()


def test_scores_and_cooccurrence_follow_from_the_stored_events(demo: Demo) -> None:
    """Reference (a), for what is counted per sample: maxima by a dense array of one sample after the other."""
    store = Store.open(demo.store)
    n, n_features = store.n_samples, store.n_features
    row_e, _, modality_e = places(store)
    feature_e = store.events.event_feature.astype(np.int64)
    z_e = np.asarray(store.events.event_value).astype(np.float64) * store.events.unit
    bounds = np.searchsorted(row_e, np.arange(n + 1))
    omega_f = np.nan_to_num(store.features.table["omega"])
    p999_f = np.maximum(store_p999(store), 1e-30)
    sets = np.zeros((2, n, n_features), bool)
    for row in range(n):
        at = slice(bounds[row], bounds[row + 1])
        largest = np.zeros((2, n_features))
        np.maximum.at(largest, (modality_e[at], feature_e[at]), z_e[at])
        text, image = largest
        length = np.linalg.norm(text) * np.linalg.norm(image)
        both = (text > 0) & (image > 0)
        expected = {
            "cosine": omega_f[(text > 0) | (image > 0)].sum(),
            "cosine-cooccurring": omega_f[both].sum(),
            "cooccurring-l0": both.sum(),
            "pooled-cosine": text @ image / length if length else 0.0,
        }
        for name, value in expected.items():
            np.testing.assert_allclose(store.quality.score_values(name)[row], value, rtol=1e-9, atol=1e-12)
        for m in (0, 1):
            ratio = largest[m] / p999_f
            strongest = np.lexsort((np.arange(n_features), -ratio))[:256]
            sets[m, row, strongest[ratio[strongest] > 0]] = True
    pairs = store.cooccurrence.pairs["text-image"]
    assert len(pairs) > 100
    for a, b, support, n_a, n_b in zip(*pairs.measures(np.arange(len(pairs)))[:5], strict=True):
        text, image = sets[0, :, a], sets[1, :, b]
        assert (support, n_a, n_b) == ((text & image).sum(), text.sum(), image.sum())
    store.close()


def places(store: Store) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, position and modality of every event."""
    events = store.events
    token_e = np.repeat(np.arange(len(events.token_id)), np.diff(events.token_event))
    row_t = np.repeat(np.arange(store.n_samples), np.diff(events.sample_token))
    position_t = np.arange(len(events.token_id)) - events.sample_token[row_t]
    return row_t[token_e], position_t[token_e], events.token_modality[token_e].astype(np.int64)


def rows(store: Store, statement: str) -> list[tuple[int, ...]]:
    with store.engine.connect() as conn:
        return [tuple(row) for row in conn.exec_driver_sql(statement)]

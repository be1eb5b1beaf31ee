"""ω, its controls, rates and verdicts against plain float64 loops over the same stored residuals: on random data
whose features mean nothing, and on a real pass of the tiny model.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import Pipeline
from precompute.steps import weigh
from precompute.store.making.unfinished import Collected, load_step
from precompute.store.schema import IMAGE, OMEGA_FIELDS, TEXT, VERDICTS
from tests.helpers import tiny
from tests.helpers.accumulator_reference import accumulate
from tests.helpers.omega_reference import K, Reference, unit
from tests.helpers.synthetic import N_FEATURES, to_bf16
from tests.helpers.tinies import Tiny

RESAMPLES = 200
N, D, SCALE_LOG2 = 40, 24, 3


class Case(NamedTuple):
    """A part on which `weigh` has run, with the directions and seed it took."""

    path: Path
    manifest: dict[str, Any]
    directions_fd: np.ndarray
    seed: int
    data: Collected
    reference: Reference
    result: dict[str, np.ndarray]


def case(path: Path, manifest: dict[str, Any], directions_fd: np.ndarray, seed: int, **options: Any) -> Case:
    given = {"directions": lambda: directions_fd, "seed": seed, "omega": "all-pairs", "resamples": RESAMPLES}
    manifest = {**manifest, **weigh.run(path, manifest, {**given, **options})}
    data = Collected(path, manifest)
    return Case(path, manifest, directions_fd, seed, data, Reference(data), load_step(path, "weigh"))


def write_random(path: Path, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """What `collect` would leave of samples of any length and mixture: features fire by chance with a rate of their
    own in each modality, values are coarse so that ties abound, and all h share a large direction."""
    rng = np.random.Generator(np.random.PCG64(seed))
    directions_fd = (rng.standard_normal((N_FEATURES, D)) / np.sqrt(D) * rng.uniform(0.2, 2, (N_FEATURES, 1))).astype(
        np.float32
    )
    rate_mf = rng.uniform(0, 0.5, (2, N_FEATURES)) * (rng.random((2, N_FEATURES)) < 0.8)
    common_md = rng.standard_normal((2, D)) + 1.5
    n_n = rng.integers(2, 16, N)
    kind_t = rng.choice(4, n_n.sum(), p=[0.45, 0.4, 0.1, 0.05]).astype(np.uint8)
    counted = kind_t <= IMAGE
    fires_tf = (rng.random((len(kind_t), N_FEATURES)) < rate_mf[np.minimum(kind_t, 1)]) & counted[:, None]
    stored_tf = (fires_tf * rng.choice([1, 2, 3, 5, 8, 13, 40], fires_tf.shape)).astype(np.float16)
    h_td = rng.standard_normal((len(kind_t), D)) * rng.uniform(0.3, 1, (len(kind_t), 1))
    h_td += common_md[np.minimum(kind_t, 1)]
    h_td += stored_tf.astype(np.float64) / 2.0**SCALE_LOG2 @ directions_fd
    token, feature = np.nonzero(stored_tf)
    value = stored_tf[token, feature]
    row_t = np.repeat(np.arange(N), n_n)
    position_t = np.arange(len(kind_t)) - np.repeat(np.cumsum(n_n) - n_n, n_n)
    ds = np.sort(rng.choice(N, 32, replace=False))
    remaining = np.flatnonzero(counted & np.isin(row_t, ds))
    largest = np.zeros((N, 2, N_FEATURES), np.float16)
    np.maximum.at(largest, (row_t[token], kind_t[token], feature), value)
    group = largest.reshape(2 * N, N_FEATURES)
    at, of = np.nonzero(group)
    arrays = {
        "events/sample_token": np.r_[0, np.cumsum(n_n)], "events/token_id": np.zeros(len(kind_t), np.int32),
        "events/token_modality": kind_t, "events/token_event": np.r_[0, np.cumsum(fires_tf.sum(1))],
        "events/event_feature": feature.astype(np.uint16), "events/event_value": value,
        "collect/max_full_offset": np.r_[0, np.cumsum((group > 0).sum(1))],
        "collect/max_full_feature": of.astype(np.uint16), "collect/max_full_value": group[at, of],
        "collect/resid": to_bf16(h_td[remaining]), "collect/resid_row": row_t[remaining],
        "collect/resid_pos": position_t[remaining].astype(np.int32), "collect/ds_rows": ds,
    }  # fmt: skip
    for folder in ("events", "collect"):
        (path / folder).mkdir(parents=True)
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    np.savez(
        path / "collect/accum.npz",
        **accumulate(
            feature, kind_t[token], value, row_t[token], position_t[token], np.zeros((len(token), 2), int), N_FEATURES
        ),
        cells=np.ones((7, 7), np.int64),
    )
    n_text, n_image = (np.bincount(row_t[kind_t == m], minlength=N) for m in (TEXT, IMAGE))
    np.savez(path / "collect/sample.npz", n_text=n_text, n_image=n_image)
    counts = np.bincount(kind_t, minlength=2)
    manifest = {
        "sae": {"n_features": N_FEATURES},
        "scale_log2": SCALE_LOG2,
        "tokens": {"text": int(counts[TEXT]), "image": int(counts[IMAGE])},
    }
    return manifest, directions_fd


@pytest.fixture(scope="module")
def at_random(tmp_path_factory: pytest.TempPathFactory) -> Case:
    path = tmp_path_factory.mktemp("omega") / "random.part"
    manifest, directions_fd = write_random(path, 3)
    return case(path, manifest, directions_fd, 3, delta=0.3)


@pytest.fixture(scope="module")
def real(tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The tiny LLaVA over real pictures; every sample is in D_s."""
    root = tmp_path_factory.mktemp("omega")
    run = Pipeline(
        PrecomputeOptions(
            data=str(tiny_files.data),
            model=str(tiny_files.model),
            sae=str(tiny.make_sae(root / "sae", bias=-0.2)),
            out=root / "store",
            batch_tokens=300,
            ds=40,
            device="cpu",
        )
    )
    return case(run.part, run.collect(), run.session.sae.directions_fd.numpy(), 0)


@pytest.fixture(params=["at_random", "real"])
def any_case(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(request.param)


def test_paired_and_its_controls(any_case: Case) -> None:
    c = any_case
    draws = np.random.Generator(np.random.PCG64(c.seed)).integers(0, K, (RESAMPLES, K))
    tested = []
    for k in range(c.data.n_features):
        expected = c.reference.paired(k, c.result["delta"][k], c.directions_fd[k].astype(np.float64), draws)
        if expected is None:
            assert all(np.isnan(c.result[name][k]) for name in OMEGA_FIELDS)
            continue
        tested.append(k)
        for name in OMEGA_FIELDS:
            assert c.result[name][k] == pytest.approx(expected[name], abs=1e-5), (k, name)
    assert len(tested) > 15 and len(tested) < c.data.n_features


def test_all_pairs(any_case: Case) -> None:
    c, known = any_case, 0
    for k in range(c.data.n_features):
        both = [(i, m) for m in (TEXT, IMAGE) for i in c.reference.firing(k, c.result["delta"][k], m, once=False)]
        both.sort(key=lambda x: (-c.reference.z[x[0]][k], c.reference.row[x[0]], c.reference.pos[x[0]]))
        sides = {m: [i for i, kind in both[:30] if kind == m][:5] for m in (TEXT, IMAGE)}
        if not all(sides.values()):
            assert np.isnan(c.result["omega_all_pairs"][k])
            continue
        known += 1
        cosines = [unit(c.reference.h[a]) @ unit(c.reference.h[b]) for a in sides[TEXT] for b in sides[IMAGE]]
        assert c.result["omega_all_pairs"][k] == pytest.approx(np.mean(cosines), abs=1e-5), k
    assert known > 4  # few of the tiny model's features have both modalities among their thirty strongest


def test_modality_share_and_same_sample_rate(any_case: Case) -> None:
    """Token by token over all of D, those outside D_s too."""
    c, e = any_case, any_case.data.events
    tokens = [0, 0]
    fired = np.zeros((c.data.n_features, 2), int)
    samples: list[tuple[set[int], set[int]]] = [(set(), set()) for _ in range(c.data.n_features)]
    for row in range(len(e.sample_token) - 1):
        for t in range(int(e.sample_token[row]), int(e.sample_token[row + 1])):
            m = int(e.token_modality[t])
            if m not in (TEXT, IMAGE):
                continue
            tokens[m] += 1
            for i in range(int(e.token_event[t]), int(e.token_event[t + 1])):
                k = int(e.event_feature[i])
                fired[k, m] += 1
                samples[k][m].add(row)
    for k, (text, image) in enumerate(samples):
        if not text | image:
            assert np.isnan(c.result["modality_share"][k]) and np.isnan(c.result["same_sample_rate"][k])
            continue
        per_text, per_image = fired[k, TEXT] / tokens[TEXT], fired[k, IMAGE] / tokens[IMAGE]
        assert c.result["modality_share"][k] == pytest.approx(per_image / (per_image + per_text))
        assert c.result["same_sample_rate"][k] == pytest.approx(len(text & image) / len(text | image))


def test_the_pair_count_passes_by_benjamini_and_hochberg(any_case: Case) -> None:
    """Step up: the largest i with p₍ᵢ₎ ≤ 5 % · i / m, and every feature up to it."""
    p = any_case.result["pair_p"]
    order = sorted(np.flatnonzero(~np.isnan(p)).tolist(), key=lambda k: p[k])
    last = max((i for i, k in enumerate(order, 1) if p[k] <= 0.05 * i / len(order)), default=0)
    beyond = [VERDICTS.index(name) for name in ("cross-modal", "in-context", "weakly-paired")]
    passed = np.flatnonzero(np.isin(any_case.result["verdict"], beyond))
    assert sorted(order[:last]) == passed.tolist()


def test_features_that_mean_nothing_are_not_called_cross_modal(at_random: Case) -> None:
    """Whatever their raw ω, which a shared direction lifts."""
    tested = ~np.isnan(at_random.result["p_value"])
    cross = at_random.result["verdict"][tested] == VERDICTS.index("cross-modal")
    assert at_random.result["omega"][tested].mean() > 0.3
    assert cross.mean() <= 0.1


def test_authors_repeated_samples(at_random: Case, tmp_path: Path) -> None:
    """`--repeat-samples`: the sixteen strongest tokens, whichever samples they come from."""
    manifest, directions_fd = write_random(tmp_path / "part", 3)
    c = case(tmp_path / "part", manifest, directions_fd, 3, delta=0.3, repeat_samples=True)
    once = ~np.isnan(at_random.result["omega"])
    assert (~np.isnan(c.result["omega"]) == once).all()  # who is tested does not change
    for k in np.flatnonzero(once):
        sides = [c.reference.firing(int(k), 0.3, m, once=False)[:K] for m in (TEXT, IMAGE)]
        cosines = [unit(c.reference.h[a]) @ unit(c.reference.h[b]) for a, b in zip(*sides, strict=True)]
        assert c.result["omega"][k] == pytest.approx(np.mean(cosines), abs=1e-5)
    assert not np.allclose(c.result["omega"][once], at_random.result["omega"][once])
    assert json.loads(json.dumps(c.manifest["omega"]))["repeat_samples"] is True

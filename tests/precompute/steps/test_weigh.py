"""ω against a plain float64 reference, written feature by feature from METHOD and from the same stored
residuals.
"""

import numpy as np
import pytest

from precompute.steps import omega, weigh
from precompute.store.histogram import EDGES, percentile
from precompute.store.making.unfinished import Collected, load_step
from precompute.store.schema import IMAGE, OMEGA_FIELDS, TEXT
from tests.helpers.omega_reference import K, Reference, unit
from tests.helpers.synthetic import FIRST_LOOSE, N_FEATURES, N_LOOSE
from tests.helpers.unfinished import Part


@pytest.fixture(scope="module")
def reference(part: Part) -> Reference:
    return Reference(part.data)


def test_paired_agrees_with_reference(part: Part, reference: Reference) -> None:
    result, directions = load_step(part.path, "weigh"), part.options["directions"]().astype(np.float64)
    draws = np.random.Generator(np.random.PCG64(part.options["seed"])).integers(0, K, (1000, K))
    tested = 0
    for k in range(N_FEATURES):
        expected = reference.paired(k, result["delta"][k], directions[k], draws)
        if expected is None:
            assert all(np.isnan(result[name][k]) for name in OMEGA_FIELDS)
            continue
        tested += 1
        for name in OMEGA_FIELDS:
            assert result[name][k] == pytest.approx(expected[name], abs=1e-5), (k, name)
    assert tested > 20


@pytest.mark.parametrize("n_block", [37, 100_000])
@pytest.mark.parametrize("n_piece", [1, 20])
def test_the_means_do_not_hang_on_the_pieces(
    part: Part, n_block: int, n_piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Collected(part.path, part.manifest)
    a_token = 8 * data.resid.shape[1]
    monkeypatch.setattr(omega, "_BLOCK_BYTES", n_block * a_token)
    whole = omega.common_means(data)  # a block is one piece
    monkeypatch.setattr(omega, "PIECE_BYTES", n_piece * a_token)
    assert max(map(len, omega.blocks(data))) > 1
    for result, wanted in zip(omega.common_means(data), whole, strict=True):
        assert np.array_equal(result, wanted)


def test_all_pairs_agrees_with_reference(part: Part, reference: Reference) -> None:
    delta = load_step(part.path, "weigh")["delta"]
    result = omega.omega_all_pairs(part.data, omega.active_tokens(part.data, delta, per_sample=omega.TOP_ALL_PAIRS))
    for k in range(N_FEATURES):
        both = [(i, m) for m in (TEXT, IMAGE) for i in reference.firing(k, delta[k], m, once=False)]
        both.sort(key=lambda x: (-reference.z[x[0]][k], reference.row[x[0]], reference.pos[x[0]]))
        sides = {m: [i for i, kind in both[:30] if kind == m][:5] for m in (TEXT, IMAGE)}
        if not all(sides.values()):
            assert np.isnan(result[k])
            continue
        cosines = [unit(reference.h[a]) @ unit(reference.h[b]) for a in sides[TEXT] for b in sides[IMAGE]]
        assert result[k] == pytest.approx(np.mean(cosines), abs=1e-5)


def test_raw_omega_alone_would_not_tell(part: Part) -> None:
    result = load_step(part.path, "weigh")
    loose = slice(FIRST_LOOSE, FIRST_LOOSE + N_LOOSE)
    assert np.nanmedian(result["omega"][loose]) > 0.3  # a shared direction lifts every cosine
    assert abs(np.nanmedian(result["lift_without_self"][loose])) < 0.1


def test_counts_and_rates(part: Part) -> None:
    result, data = load_step(part.path, "weigh"), part.data
    e = data.events
    active = np.zeros((data.n_samples, N_FEATURES, 2), bool)
    for row in range(data.n_samples):
        sample = e.of(row)
        for t in range(len(sample.token_id_t)):
            for i in range(int(sample.offset_t[t]), int(sample.offset_t[t + 1])):
                active[row, sample.feature_e[i], sample.modality_t[t]] = True
    assert (result["samples"] == active.sum(0)).all()
    assert (result["n_samples"] == active.any(2).sum(0)).all()
    either, both = active.any(2).sum(0), active.all(2).sum(0)
    live = either > 0
    np.testing.assert_allclose(result["same_sample_rate"][live], both[live] / either[live])
    rate = data.accum["count"][live] / [part.manifest["tokens"]["text"], part.manifest["tokens"]["image"]]
    np.testing.assert_allclose(result["modality_share"][live], rate[:, 1] / rate.sum(1))


def test_p999_is_the_nearest_rank_edge() -> None:
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(size=5000)).astype(np.float16)
    hist = np.bincount(values.view(np.uint16) >> 7, minlength=256)
    got = float(percentile(hist, 0.999, np.float64(values.max())))
    exact = float(np.sort(values)[int(np.ceil(0.999 * len(values))) - 1])
    above = EDGES[np.searchsorted(EDGES, exact, "right")]
    assert got == min(above, float(values.max()))
    assert percentile(np.zeros(256, np.int64), 0.999, np.float64(0)) == 0
    one = np.zeros(256, np.int64)
    one[100] = 1
    assert percentile(one, 0.999, EDGES[100] * 1.01) == EDGES[100] * 1.01  # never above the largest


def test_kept_maxima_are_the_strongest(part: Part) -> None:
    """With more than 256 active features, those largest relative to p99.9 stay, ids rising."""
    data, rng = part.data, np.random.default_rng(1)

    class Wide(Collected):
        pass

    wide = Wide(part.path, part.manifest)
    wide.n_features = 600
    k = [np.sort(rng.choice(600, n, replace=False)) for n in (400, 10, 0, 300)]
    wide.__dict__.update(
        sample={"n_text": np.zeros(2)},
        max_offset=np.cumsum([0, *map(len, k)]),
        max_feature=np.concatenate(k).astype(np.uint16),
        max_value=rng.random(sum(map(len, k))).astype(np.float16) + np.float16(0.1),
    )
    p999 = rng.random(600) + 0.5
    folder = part.path.parent / "wide"
    (folder / "events").mkdir(parents=True, exist_ok=True)
    wide.part = folder
    weigh.cut_maxima(wide, p999)
    offset = np.load(folder / "events/max_offset.npy")
    feature, value = np.load(folder / "events/max_feature.npy"), np.load(folder / "events/max_value.npy")
    assert np.diff(offset).tolist() == [256, 10, 0, 256]
    for g in range(4):
        low, high = wide.max_offset[g], wide.max_offset[g + 1]
        ratio = wide.max_value[low:high].astype(float) / p999[wide.max_feature[low:high]]
        best = np.sort(np.argsort(-ratio, kind="stable")[:256])
        assert (feature[offset[g] : offset[g + 1]] == wide.max_feature[low:high][best]).all()
        assert (value[offset[g] : offset[g + 1]] == wide.max_value[low:high][best]).all()
    assert data.n_features == N_FEATURES

"""`saevx controls`: what it reads of a store against the pass, its draws against plain loops, and the command."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from precompute.controls.random_directions import as_often, projections, random_directions, rates
from precompute.controls.run import controls
from precompute.controls.sides import Sides
from precompute.errors import SaevxError
from precompute.live.originals import Originals
from precompute.model.batch import Pair
from precompute.model.mllm import Mllm
from precompute.options.controls import ControlsOptions
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import precompute
from precompute.store.companion_files import CONTROLS, companion_path, read_companion
from precompute.store.making.verify_evidence import delta
from precompute.store.reader import Store
from precompute.store.schema import IMAGE, TEXT
from precompute.store.sql import fetch_plain
from precompute.utils.types import Array
from tests.helpers import tiny
from tests.helpers.in_process import saevx
from tests.helpers.synthetic import write_store
from tests.helpers.tinies import make_tiny_store


def column(store: Store, name: str) -> Array:
    return np.array(fetch_plain(store.engine, f"SELECT {name} FROM features ORDER BY id"), dtype=float)[:, 0]


def test_the_store_gives_the_counts_of_the_pass(made_up: Store) -> None:
    counts = Sides.read(made_up, 10_000).counts()
    np.testing.assert_array_equal(counts.both_f, column(made_up, "n_both"))
    assert counts.both_f.any()


def test_fewer_pairs_are_those_with_the_smallest_hashes(made_up: Store) -> None:
    few, more = Sides.read(made_up, 30), Sides.read(made_up, 60)
    assert len(few.row) == 30 and set(few.row) < set(more.row)


def test_maxima_stand_in_where_not_all_activations_are_kept(
    options: Callable[..., PrecomputeOptions], tmp_path: Path
) -> None:
    """The tiny SAE has fewer than 256 features, so nothing is lost."""
    complete, bare = (
        Sides.read(Store.open(precompute(options(out=tmp_path / kept, events=kept))), 100) for kept in ("all", "none")
    )
    assert (complete.text != bare.text).nnz == (complete.image != bare.image).nnz == 0 < complete.image.nnz


def test_captions_are_exchanged_within_their_length(made_up: Store) -> None:
    sides = Sides.read(made_up, 10_000)
    order = sides.draw_exchange(np.random.default_rng(1))
    np.testing.assert_array_equal(sides.stratum[order], sides.stratum)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(order)))
    assert (order != np.arange(len(order))).all()
    text, image = sides.text.toarray(), sides.image.toarray()
    naive = sum((text[i] & image[order[i]]).astype(int) for i in range(len(order)))
    counts = sides.counts(order)
    np.testing.assert_array_equal(counts.both_f, naive)
    np.testing.assert_array_equal(counts.text_sf.sum(0), text.sum(0))


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=12), st.data())
def test_a_direction_is_active_on_as_large_a_share_of_tokens(rows: list[list[int]], data: st.DataObject) -> None:
    token_tk = np.array(rows, dtype=np.float32)
    n_k = np.array([data.draw(st.integers(1, len(rows))) for _ in range(3)])
    for k, limit in enumerate(as_often(token_tk, n_k / len(rows))):
        assert limit == sorted(token_tk[:, k], reverse=True)[n_k[k] - 1]


def test_rates_are_those_of_the_tokens(made_up: Store) -> None:
    """Beside a count over all events; the histogram cannot tell values inside one of its bins."""
    features, delta_fm = np.arange(made_up.n_features), delta(made_up)
    n_fm, largest_fm = np.zeros((2, made_up.n_features, 2))
    for row in range(made_up.n_samples):
        sample = made_up.events.of(row)
        modality_e = np.repeat(sample.modality_t, np.diff(sample.offset_t))
        for feature, z, m in zip(sample.feature_e, sample.z_e, modality_e, strict=True):
            n_fm[feature, m] += z > delta_fm[feature, m]
            largest_fm[feature, m] += z > delta_fm[feature, m] * 1.1
    tokens = [made_up.manifest["tokens"][name] for name in ("text", "image")]
    share_fm = rates(made_up, features).T
    assert (share_fm <= n_fm / tokens + 1e-9).all() and (share_fm >= largest_fm / tokens - 1e-9).all()
    assert share_fm.any()


@pytest.fixture(scope="module")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a real tiny model beside its model, SAE and data."""
    return make_tiny_store(tmp_path_factory.mktemp("controls"), sinks="keep")


def test_directions_are_projected_on_the_models_own_residuals(tiny_store: Path) -> None:
    store, o = Store.open(tiny_store), ControlsOptions(store=tiny_store, device="cpu")
    directions_kd = np.random.default_rng(0).standard_normal((5, store.manifest["model"]["d_model"]))
    rows = np.array([0, 3])
    along = projections(store, o, rows, directions_kd)
    mllm = Mllm.load(str(tiny_store.parent / "model"), layer=tiny.LAYER, device="cpu")
    tokens: list[list[Array]] = [[], []]
    for i, row in enumerate(rows.tolist()):
        pair, modality_t = Originals(store).pair(row), store.events.tokens(row).modality_t
        h_td = mllm.hidden(mllm.prepare([pair]))[0].float().numpy()[-len(modality_t) :]
        text_alone = mllm.prepare([Pair(pair.text)])
        alone_td = mllm.hidden(text_alone)[0].float().numpy()[text_alone.modality_bs[0] == TEXT]
        for m in (TEXT, IMAGE):
            tokens[m].append(h_td[modality_t == m] @ directions_kd.T)
            np.testing.assert_allclose(along.strongest_mnk[m, i], tokens[m][-1].max(0), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(along.alone_nk[i], (alone_td @ directions_kd.T).max(0), rtol=1e-4, atol=1e-4)
    for m in (TEXT, IMAGE):
        naive_tk = np.concatenate(tokens[m])
        np.testing.assert_allclose(np.sort(along.token_mtk[m], 0), np.sort(naive_tk, 0), rtol=1e-4, atol=1e-4)


def test_random_directions_have_the_features_rates(tiny_store: Path) -> None:
    store = Store.open(tiny_store)
    tested = random_directions(store, ControlsOptions(store=tiny_store, device="cpu"))
    n = len(tested.feature)
    assert n > 0 and len(tested.of_directions.p) == len(tested.of_text_alone.p) == n
    assert tested.n_pairs == store.n_samples
    assert np.isfinite(tested.of_directions.p).any()


def test_the_command_writes_beside_the_store_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    write_store(tmp_path / "store", n=200, seed=5)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    done = saevx("controls", tmp_path / "store", "--derangements", "3")
    assert done.status == 0 and done.out.strip() == str(companion_path(tmp_path / "store", CONTROLS))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == before
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    content, note = read_companion(tmp_path / "store", CONTROLS, manifest["content_id"])
    assert content is not None and note is None
    exchanged, directions, alone = content["controls"]
    assert exchanged["own"] > 0.3 > 0.1 > exchanged["share"] and len(exchanged["draws"]) == 3
    assert directions["share"] is None and "needs the store's model and data" in directions["note"]
    assert "needs the store's model and data" in done.err, "the running report says so"
    store = Store.open(tmp_path / "store")
    verdicts = store.detail["verdicts"]
    assert content["cross_modal"]["passed"] == verdicts["cross-modal"] == alone["passed"]
    assert alone["own"] == pytest.approx((verdicts["cross-modal"] + verdicts["in-context"]) / alone["tested"])
    again = controls(ControlsOptions(store=tmp_path / "store", derangements=3, out=tmp_path / "again.json"))
    written = companion_path(tmp_path / "store", CONTROLS)
    assert again.read_bytes() == written.read_bytes(), "the same seed gives the same bytes"
    assert read_companion(tmp_path / "store", CONTROLS, "another") == (
        None,
        "store.controls.json belongs to another store, so it is not shown.",
    )
    written.write_text("{")
    note = read_companion(tmp_path / "store", CONTROLS, "x")[1]
    assert note == "store.controls.json cannot be read, so it is not shown."


def test_data_that_has_changed_leaves_out_random_directions(tiny_store: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiny_store.parent, tmp_path / "copy")
    run = json.loads((root / "store" / "run.json").read_text())
    (root / "store" / "run.json").write_text(json.dumps({**run, "data": str(tmp_path / "nowhere")}))
    shutil.rmtree(root / "data")
    options = ControlsOptions(store=root / "store", derangements=1, device="cpu")
    directions = json.loads(controls(options).read_text())["controls"][1]
    assert directions["tested"] == 0 and "no longer at" in directions["note"]


def test_too_few_pairs_to_test_a_direction_are_told(tiny_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "controls.json"
    done = saevx("controls", tiny_store, "--samples", 2, "--derangements", 1, "--device", "cpu", "--out", out)
    assert done.status == 0, done.err
    directions = json.loads(out.read_text())["controls"][1]
    assert directions["tested"] == 0 and directions["note"].endswith("2 pairs to be tested: raise --samples.")


def test_a_store_of_texts_alone_has_no_pairs(options: Callable[..., PrecomputeOptions], tmp_path: Path) -> None:
    store = precompute(options(model=str(tiny.make_llama(tmp_path / "llama")), text_only=True))
    with pytest.raises(SaevxError, match="no sample with both text and image"):
        controls(ControlsOptions(store=store))


def test_more_exchanges_than_anybody_waits_for_are_refused() -> None:
    done = saevx("controls", "store", "--derangements", "1001")
    assert done.status == 2 and "--derangements takes a number that is at most 1000, not 1001." in done.err

"""Where a feature fires, against a plain loop over the events, also where it is not among the stored maxima."""

import numpy as np
import pytest

from precompute.store import events as of_events
from precompute.store import schema as s
from precompute.store.reader import Store
from precompute.store.relations import map_colours as of_map
from precompute.store.relations import pair_samples as of_pair
from precompute.store.relations.feature_pairs import SIDES
from tests.helpers import synthetic

KEPT = 3
"""Maxima of a side that `store` keeps."""


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with all events, and maxima of the strongest few features of a side only."""
    store = Store.open(synthetic.small_store(tmp_path_factory))
    events, p999 = store.events, store.features.table["p999"]
    offset, kept = [0], []
    for low, high in zip(events.max_offset[:-1].tolist(), events.max_offset[1:].tolist(), strict=True):
        share = events.max_value[low:high].astype(float) / p999[events.max_feature[low:high].astype(int)]
        kept += sorted((low + np.argsort(-share, kind="stable")[:KEPT]).tolist())
        offset.append(len(kept))
    cut = {"max_offset": np.array(offset), "max_feature": events.max_feature[kept], "max_value": events.max_value[kept]}
    events.__dict__.update(cut)
    return store


def largest(store: Store, feature: int, modality: int) -> dict[int, float]:
    """By row, the largest activation on a side, by a loop over its events; rows where it fires."""
    found: dict[int, float] = {}
    for row in range(store.n_samples):
        sample = store.events.of(row)
        for t, kind in enumerate(sample.modality_t.tolist()):
            for e in range(int(sample.offset_t[t]), int(sample.offset_t[t + 1])):
                if kind == modality and sample.feature_e[e] == feature:
                    found[row] = max(found.get(row, 0.0), float(sample.z_e[e]))
    return found


@pytest.mark.parametrize("feature", [synthetic.word_feature("red"), synthetic.word_feature("dog"), synthetic.DENSE])
def test_samples_with_a_feature_are_those_of_all_events(
    store: Store, feature: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [largest(store, feature, m) for m in range(len(s.MODALITIES))]
    side, z = store.events.sides_with(feature)
    found = dict(zip(side.tolist(), z.tolist(), strict=True))
    assert list(found) == sorted(found)
    assert found == {row * 2 + m: value for m, of in enumerate(expected) for row, value in of.items()}
    delta = s.DELTA_SHARE * store.features.table["p999"][feature]
    on = [{row for row, value in of.items() if value >= delta} for of in expected]
    ids = store.selection.ordered_rows(feature=feature, side="image").tolist()
    assert set(ids) == on[s.IMAGE]
    both = store.selection.ordered_rows(feature=feature, side="both").tolist()
    assert set(both) == on[s.IMAGE] & on[s.TEXT]

    monkeypatch.setattr(of_events, "SCANNED", 0)  # by the maxima
    assert not store.events.scans_all
    few, z = store.events.sides_with(feature)
    of_maxima = {
        row * 2 + m: dict(zip(*(x.tolist() for x in store.events.maxima(row, m)), strict=True)).get(feature)
        for row in range(store.n_samples)
        for m in range(2)
    }
    assert dict(zip(few.tolist(), z.tolist(), strict=True)) == {k: v for k, v in of_maxima.items() if v is not None}


@pytest.mark.parametrize("kind", SIDES)
@pytest.mark.parametrize("exact", [True, False])
def test_shares_of_a_pair_are_those_of_all_events(
    store: Store, kind: str, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = store.cooccurrence.list(kind=kind, min_support=2, limit=1).items[0]
    a, b = pair["a"]["id"], pair["b"]["id"]
    z = [largest(store, f, m) for f, m in zip((a, b), SIDES[kind], strict=True)]
    p999 = store.features.table["p999"]
    share = {
        store.samples.sample_id(row): (z[0].get(row, 0.0) / p999[a], z[1].get(row, 0.0) / p999[b])
        for row in range(store.n_samples)
    }
    expected = {
        "both": {name for name, (x, y) in share.items() if min(x, y) >= s.DELTA_SHARE},
        "only_a": {name for name, (x, y) in share.items() if x >= s.DELTA_SHARE and y == 0},
        "only_b": {name for name, (x, y) in share.items() if y >= s.DELTA_SHARE and x == 0},
    }
    if not exact:
        monkeypatch.setattr(of_events, "SCANNED", 0)
        monkeypatch.setattr(s, "KEPT_MAXIMA", KEPT)
    samples = of_pair.pair_samples(store, kind, a, b, 500)
    assert samples["exact"] is exact and expected["both"]
    for name, ids in expected.items():
        got = {one["sample_id"] for one in samples[name]}
        assert got == ids if exact else got <= ids
        for one in samples[name]:
            assert (one["share_a"], one["share_b"]) == pytest.approx(share[one["sample_id"]])


def test_groups_and_strongest_features_of_a_sample_are_those_of_all_events(store: Store) -> None:
    """A feature that is on in the text and in the image is in `both`, though it is not among the image's maxima."""
    p999, n_on_both = store.features.table["p999"], 0
    for row in range(store.n_samples):
        sample, events = store.samples.get(store.samples.sample_id(row), top=10_000), store.events.of(row)
        z_fm = np.zeros((store.n_features, 2))
        for t, kind in enumerate(events.modality_t.tolist()):
            for e in range(int(events.offset_t[t]), int(events.offset_t[t + 1])):
                feature = events.feature_e[e]
                z_fm[feature, kind] = max(z_fm[feature, kind], events.z_e[e])
        for m, side in enumerate(s.MODALITIES):
            activations = {one["id"]: one["activation"] for one in sample["top_features"][side]}
            assert activations == {int(k): z_fm[k, m] for k in np.flatnonzero(z_fm[:, m])}
        is_on = z_fm >= s.DELTA_SHARE * p999[:, None]
        for name, where in {"both": (True, True), "image_only": (False, True), "text_only": (True, False)}.items():
            for group in sample["groups"][name]:
                assert tuple(is_on[group["members"]].any(axis=0).tolist()) == where
        n_on_both += len(sample["groups"]["both"])
        share_f = of_map.shares(store, row)
        expected_f = np.minimum(z_fm.max(axis=1) / np.maximum(p999, 1e-9), 1)
        assert np.nan_to_num(share_f) == pytest.approx(expected_f)
    assert n_on_both

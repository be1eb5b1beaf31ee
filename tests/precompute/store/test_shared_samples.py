"""Matches by shared samples, against a plain loop, on two layers with other numbers and directions."""

from pathlib import Path

import numpy as np
import pytest

from precompute.errors import SaevxError
from precompute.store.reader import Store
from precompute.store.relations.shared_samples import MIN_SIDES, SharedMatches, shared_rows
from tests.helpers import synthetic, synthetic_layers


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    return tuple(Store.open(make(tmp_path_factory)) for make in (synthetic.small_store, synthetic_layers.layer_store))  # type: ignore[return-value]


def maxima_of(store: Store, rows: list[int]) -> np.ndarray:
    """[2, n, F]: the largest activation of each feature on the text and on the image of each sample."""
    z_mnf = np.zeros((2, len(rows), store.n_features))
    for m in range(2):
        for i, row in enumerate(rows):
            for feature, z in zip(*store.events.maxima(row, m), strict=True):
                z_mnf[m, i, feature] = z
    return z_mnf


def naive_correlation(x_mn: np.ndarray, y_mn: np.ndarray) -> float | None:
    """Of two features, each [2, n]: the means of texts and images are taken off one by one."""
    if (x_mn > 0).sum() < MIN_SIDES or (y_mn > 0).sum() < MIN_SIDES:
        return None
    x, y = (np.concatenate([z_mn[0] - z_mn[0].mean(), z_mn[1] - z_mn[1].mean()]) for z_mn in (x_mn, y_mn))
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def test_matches_are_those_of_a_plain_loop(layers: tuple[Store, Store]) -> None:
    here, there = layers
    rows = list(range(here.n_samples))
    x_mnf, y_mnf = maxima_of(here, rows), maxima_of(there, rows)
    matches = SharedMatches(here, there).nearest(range(here.n_features))
    assert len(matches) > 60
    for id in range(here.n_features):
        pairs = [(naive_correlation(x_mnf[..., id], y_mnf[..., k]), k) for k in range(there.n_features)]
        known = [(value, k) for value, k in pairs if value is not None]
        if not known or naive_correlation(x_mnf[..., id], x_mnf[..., id]) is None:
            assert id not in matches
            continue
        best, _ = max(known)
        assert matches[id].cosine == pytest.approx(best, abs=1e-5)
        assert {k: value for value, k in known}[matches[id].id] == pytest.approx(best, abs=1e-5)
        back = [naive_correlation(x_mnf[..., j], y_mnf[..., matches[id].id]) for j in range(here.n_features)]
        nearest = int(np.nanargmax([np.nan if value is None else value for value in back]))
        assert matches[id].mutual == (nearest == id)


def test_each_feature_meets_itself_in_the_other_layer(layers: tuple[Store, Store]) -> None:
    here, there = layers
    number = {int(old): new for new, old in enumerate(synthetic_layers.layer_order(7))}
    matches = SharedMatches(here, there).nearest([synthetic.word_feature(word) for word in ("red", "cat", "dog")])
    for word in ("red", "cat"):
        match = matches[synthetic.word_feature(word)]
        assert match.cosine == pytest.approx(1, abs=1e-5) and match.mutual
        assert match.id == number[synthetic.word_feature(word)]
    assert matches[synthetic.word_feature("dog")].cosine < 0.9  # silenced there


def test_the_same_content_is_the_same_sample_under_any_id(layers: tuple[Store, Store], tmp_path: Path) -> None:
    here, there = layers
    rows = shared_rows(here, there)
    assert len(rows.here_n) == here.n_samples and (rows.here_n == rows.there_n).all()
    synthetic.write_store(tmp_path / "store", n=30, seed=9)
    other = Store.open(tmp_path / "store")
    common = shared_rows(here, other)
    key = [
        {(s["text"], *(i["sha256"] for i in s["images"])) for s in one.samples.items(range(one.n_samples)).values()}
        for one in (here, other)
    ]
    assert len(common.here_n) == len(key[0] & key[1])
    if not len(common.here_n):
        with pytest.raises(SaevxError, match="no sample in common"):
            SharedMatches(here, other)

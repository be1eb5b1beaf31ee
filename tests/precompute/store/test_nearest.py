"""The samples nearest to one, against a plain loop over all sample vectors."""

import numpy as np
import pytest

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.reader import Store
from tests.helpers import synthetic


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(synthetic.small_store(tmp_path_factory))


@pytest.mark.parametrize("modality", s.MODALITIES)
def test_nearest_are_those_of_a_plain_search(store: Store, modality: str) -> None:
    vectors = store.search.index(f"sample_{modality}").reconstruct_n(0, store.n_samples)
    for row in (0, 5, 60):
        items = store.nearest.of(row, modality, 6)["items"]
        cosine_n = vectors @ vectors[row]
        cosine_n[row] = -np.inf
        expected = np.sort(cosine_n)[::-1][: len(items)]
        assert np.allclose([one["cosine"] for one in items], expected, atol=2e-3)
        assert row not in [one["row"] for one in items]
        assert all(abs(cosine_n[one["row"]] - one["cosine"]) < 2e-3 for one in items)


def test_nearest_by_both_sides_are_those_of_a_plain_search(store: Store) -> None:
    vectors = store.search.vectors_of(np.arange(store.n_samples))
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    for row in (0, 5, 60):
        result = store.nearest.of_both(row, 6)
        cosine_n = vectors @ vectors[row]
        cosine_n[row] = -np.inf
        assert np.allclose(list(result.values()), np.sort(cosine_n)[::-1][:6], atol=2e-3)
        assert row not in result and all(abs(cosine_n[other] - cosine) < 2e-3 for other, cosine in result.items())


def test_shared_features_are_on_in_both_and_one_of_each_concept(store: Store) -> None:
    n_shared = 0
    for row in (0, 5, 60):
        own = set(store.events.maxima(row, s.IMAGE)[0].tolist())
        for one in store.nearest.of(row, "image", 6)["items"]:
            shared = [feature["id"] for feature in one["shared"]]
            assert set(shared) <= own & set(store.events.maxima(one["row"], s.IMAGE)[0].tolist())
            assert len(set(store.features.concept[shared])) == len(shared)
            n_shared += len(shared)
    assert n_shared


def test_how_a_caption_fits_an_image(store: Store) -> None:
    row = 5
    answer = store.nearest.of(row, "image", 4)
    image = dict(zip(*(values.tolist() for values in store.events.maxima(row, s.IMAGE)), strict=True))

    def fit(other: int) -> float:
        text = dict(zip(*(values.tolist() for values in store.events.maxima(other, s.TEXT)), strict=True))
        dot = sum(z * image[k] for k, z in text.items() if k in image)
        lengths = [sum(z * z for z in side.values()) ** 0.5 for side in (text, image)]
        return float(dot / (lengths[0] * lengths[1]))

    assert answer["own_fit"] == pytest.approx(fit(row))
    assert answer["own_fit"] == pytest.approx(store.quality.score_values("pooled-cosine")[row])
    for one in answer["items"]:
        assert one["caption_fit"] == pytest.approx(fit(one["row"]))


def test_a_sample_without_a_text_has_none_near_by_it(store: Store) -> None:
    vectors = store.search.index("sample_text").reconstruct_n(0, store.n_samples)
    empty = np.flatnonzero(~vectors.any(axis=1))
    assert len(empty)
    answer = store.nearest.of(int(empty[0]), "text")
    assert answer["items"] == [] and answer["own_fit"] is None
    with pytest.raises(SaevxError, match="modality"):
        store.nearest.of(0, "sound")

"""Exact neighbours, sample vectors that a live query can make too, and the logit lens."""

import numpy as np
import pytest
import torch

from precompute.sae.directions import centre
from precompute.sae.logit_lens import largest_values
from precompute.steps import index
from precompute.store.making.unfinished import load_step
from precompute.store.reader import Store
from precompute.store.schema import MODALITIES
from precompute.store.search import projection
from tests.helpers.synthetic import CONCEPTS, VOCABULARY, word_feature
from tests.helpers.unfinished import Part


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-30)


def test_neighbours_are_exact(part: Part) -> None:
    result, alive = load_step(part.path, "index"), load_step(part.path, "weigh")["density"].max(1) > 0
    directions = centre(part.options["directions"](), alive).unit_fd
    cosine = directions @ directions.T
    np.fill_diagonal(cosine, -np.inf)
    expected = np.sort(cosine, axis=1)[:, ::-1][:, : index.N_NEIGHBOURS]
    np.testing.assert_allclose(result["decoder_cosine"], expected, atol=1e-5)
    assert (result["decoder_neighbours"] != np.arange(len(directions))[:, None]).all()


def test_a_words_features_have_similar_profiles(part: Part) -> None:
    result = load_step(part.path, "index")
    for word in ("dog", "red", "house"):
        k = word_feature(word)
        assert {k + 1, k + 2} <= set(result["profile_neighbours"][k, :4].tolist())
    dead = len(VOCABULARY) * 0 + 120
    assert (result["profile_neighbours"][dead] == -1).all()


def test_nearest_handles_twins_zeros_and_few() -> None:
    x = unit(np.array([[1, 0], [1, 0], [0, 1], [0, 0]], dtype=np.float32))
    other, cosine = index.nearest(x, k=3)
    assert other[0].tolist()[:2] == [1, 2] and other[1].tolist()[:2] == [0, 2]
    assert cosine[0, 0] == pytest.approx(1)
    assert (other[3] == -1).all() and other[0, 2] == -1


def test_largest_is_what_sorting_finds() -> None:
    value = torch.randn(5, 6000, generator=torch.Generator().manual_seed(0))
    value[0, 300:320] = 9.0  # all in one block
    value[1, -3:] = 9.0  # beyond the last whole block
    for k in (1, 10, 40):
        result, at = largest_values(value, k)
        assert torch.equal(result, value.sort(dim=1, descending=True).values[:, :k])
        assert torch.equal(value.gather(1, at), result)
        assert all(len(set(row.tolist())) == k for row in at)


def test_sample_vector_formula(made_up: Store) -> None:
    """METHOD *Search*: log(1 + max z / p99.9) · log(N / n), normalised, projected, as a live query computes
    it.
    """
    table, f = made_up.features.table, made_up.n_features
    for m, name in enumerate(MODALITIES):
        stored = made_up.search.index(f"sample_{name}")
        for row in (0, 3, 50):
            k, z = made_up.events.maxima(row, m)
            n = table[f"samples_{name}"][k]
            weight = np.log(1 + z / table["p999"][k]) * np.log(made_up.n_samples / n)
            plain = np.zeros(f)
            plain[k] = weight
            expected = unit(unit(plain) @ projection(f).astype(np.float64))
            live = made_up.search.sample_vector(k, z, name)
            np.testing.assert_allclose(live, expected, atol=1e-5)
            np.testing.assert_allclose(stored.reconstruct(row), live, atol=2e-3)  # float16 storage
            assert np.linalg.norm(live) == pytest.approx(1, abs=1e-5)


def test_projection_is_a_constant_of_the_format() -> None:
    signs = np.random.Generator(np.random.PCG64(20250217)).integers(0, 2, (10, 256), dtype=np.int8)
    assert np.array_equal(projection(10), (signs * 2 - 1) / np.float32(16))


def test_nearest_samples_share_the_things(made_up: Store) -> None:
    row = next(r for r in range(40) if made_up.samples.get(f"s{r:05d}")["extra"]["drawn"])
    me = made_up.samples.get(f"s{row:05d}")
    hits = made_up.search.nearest_samples(
        made_up.search.sample_vector(*made_up.events.maxima(row, 1), "image"), "image", 6
    )
    assert hits[0]["row"] == row and hits[0]["cosine"] == pytest.approx(1, abs=2e-3)
    shared = [set(made_up.samples.get(h["sample_id"])["extra"]["drawn"]) & set(me["extra"]["drawn"]) for h in hits[1:4]]
    assert all(shared)
    assert made_up.search.nearest_samples(np.zeros(256), "text") == []


def test_planted_word_is_promoted(made_up: Store) -> None:
    hits = sum(
        made_up.features.get(word_feature(w))["logits"]["promoted"][0][0].strip() in (w, "umb") for w in CONCEPTS
    )
    assert hits >= len(CONCEPTS) - 1

"""Position-aware, attribution-based and ridge support: each against a plain reference."""

from typing import Any

import numpy as np
import pytest
import torch

from precompute.experiments.support import attribution, positions, ridge
from precompute.experiments.support.compare import choose, told_apart
from precompute.experiments.support.positions import Claim
from precompute.experiments.support.reading import Engine, Reading, read_pairs
from precompute.model.batch import IMAGE, TEXT, Pair
from precompute.model.hooks import replace
from precompute.model.mllm import Mllm
from precompute.sae.encode import Scale, encode_batch
from precompute.sae.sae import SaeV
from precompute.utils.stats import unit
from tests.helpers import tiny

SCALE = Scale(0, (np.inf, np.inf))


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a red circle to the left of a dog , blue background", [("relation", [1, 2], [8], (-1, 0), 0)]),
        ("there is a dog below a cat on a red background", [("relation", [3], [6], (0, 1), 0)]),
        ("in the top right there is a dog", [("corner", [7], [], (1, -1), 0)]),
        ("a picture of three gray triangles", [("number", [4, 5], [], (0, 0), 3)]),
        ("a dog and a cat on a white background", []),
    ],
)
def test_what_a_caption_claims(caption: str, expected: list[tuple[Any, ...]]) -> None:
    assert positions.claims(caption.split()) == [Claim(*one) for one in expected]


def reading(words: str, at: dict[str, list[int]], grid: tuple[int, int] = (5, 5)) -> Reading:
    """A token a word, each with a feature of its own, which fires on these patches."""
    parts = words.split()
    patch_pf = np.zeros((grid[0] * grid[1], len(parts)), np.float32)
    for word, patches in at.items():
        patch_pf[patches, parts.index(word)] = 0.5
    none = np.full((len(parts), 2), np.nan)
    return Reading(parts, np.arange(len(parts)), np.eye(len(parts), dtype=np.float32), patch_pf, grid, none)


def test_things_stand_where_the_caption_says() -> None:
    places = {"dog": [5, 10], "cat": [8, 13]}  # columns 0 and 3, rows 1 and 2
    for words, wanted in (("a dog left of a cat", 3.0), ("a dog right of a cat", -3.0), ("a dog above a cat", 0.0)):
        score = positions.place_scores(reading(words, places), np.ones(len(words.split())))
        assert set(score) == set(positions.PLACE_WAYS)
        assert score == pytest.approx(dict.fromkeys(score, wanted))
    corner = positions.place_scores(reading("a dog in the bottom left", {"dog": [5, 10]}), np.ones(6))
    assert corner["centre-1"] == pytest.approx(-0.5), "as far up as half a patch: the worse of the two directions"
    assert positions.place_scores(reading("a dog", {"dog": [5]}), np.ones(2))["centre-1"] == 0


def test_groups_are_counted_and_a_number_is_read_off_them() -> None:
    two, three = {"dogs": [0, 1, 24]}, {"dogs": [0, 4, 24]}
    for where, n in ((two, 2), (three, 3)):
        one = positions.count_groups(reading("there are two dogs", where), np.ones(4))
        assert one.number == 2 and one.figures.tolist() == [n] * 3 + [3] * 3 + [3]
    known = [
        positions.Counted(n, np.array([n] * 3 + [area] * 3 + [area], float)) for n in (2, 3) for area in range(3, 9)
    ]
    score = positions.Counter.fitted(known).scores(known[-1])
    assert set(score) == set(positions.NUMBER_WAYS) and score["groups-0.5"] == 0 and score["fitted"] > -0.2
    wrong = positions.Counter.fitted(known).scores(known[-1]._replace(number=2))
    assert wrong["groups-0.5"] == -1 and wrong["fitted"] < -0.8


def test_ridge_against_fits_without_the_row() -> None:
    rng = np.random.default_rng(0)
    x, y, new = rng.random((9, 4)), rng.random((9, 2)), rng.random((3, 4))
    fit = ridge.fit_ridge(x, y, [0.3])
    size = np.square(x - x.mean(0)).sum() / 9

    def primal(rows: list[int], points: np.ndarray) -> np.ndarray:
        inputs, mean = x[rows] - x[rows].mean(0), y[rows].mean(0)
        slope = np.linalg.solve(inputs.T @ inputs + 0.3 * size * np.eye(4), inputs.T @ (y[rows] - mean))
        return mean + (points - x[rows].mean(0)) @ slope

    assert fit.predict(new) == pytest.approx(primal(list(range(9)), new))
    left_out = [y[i] - primal([j for j in range(9) if j != i], x[[i]])[0] for i in range(9)]
    assert fit.missed_ng == pytest.approx(np.stack(left_out))
    errors = {strength: np.square(ridge.fit_ridge(x, y, [strength]).missed_ng).sum() for strength in (0.01, 1.0, 100.0)}
    assert ridge.fit_ridge(x, y, list(errors)).strength == min(errors, key=lambda strength: errors[strength])


def test_captions_that_fit_their_image_score_higher() -> None:
    rng = np.random.default_rng(1)
    image = unit(rng.random((60, 12))).astype(np.float32)
    text = image @ rng.random((12, 8)).astype(np.float32)
    pools = {"max": image, "mean": image[:, :6], "moments": np.hstack([image, image])}
    fit = ridge.Expectation.fitted(text[:40], {name: of[:40] for name, of in pools.items()})
    new = {name: of[40:] for name, of in pools.items()}
    right, wrong = fit.scores(text[40:], new), fit.scores(np.roll(text[40:], 1, 0), new)
    assert set(right) == set(ridge.WAYS)
    for way in ("max-residual", "max-cosine", "moments-cosine"):
        assert (right[way] > wrong[way]).mean() > 0.9


def test_attribution_against_a_small_step(whole: Mllm, saev: SaeV) -> None:
    """To the first order, taking a little off the features of the patches takes that much off log p of each word."""
    image = tiny.picture(3)
    batch = whole.prepare([Pair("a red dog", [image]), Pair("two dogs", [image])])
    logprobs = attribution.token_logprobs(whole, batch)
    one = encode_batch(whole.hidden(batch), batch, saev, SCALE)
    assert torch.equal(logprobs[1].detach(), whole.hidden(batch)), "what is encoded in place of a run of its own"
    wanted = [np.ones(int((row == TEXT).sum()), bool) for row in batch.modality_bs]
    wanted[1][0] = False
    result = attribution.attributions(saev, batch, one, logprobs, wanted, SCALE)
    assert np.isnan(result[1][0]).all() and np.isfinite(result[0]).all()

    step = 1e-3
    for b in (0, 1):
        position_e, feature_e, z_e = attribution.patch_events(one, batch, b, SCALE)
        assert len(z_e) and set(batch.modality_bs[b][position_e]) == {IMAGE}
        for t, position in enumerate(np.flatnonzero(batch.modality_bs[b] == TEXT)):
            if np.isnan(result[b][t, 0]):
                continue
            own = np.isin(feature_e, attribution.token_features(one, b, int(position)))
            for i, chosen in enumerate((own, np.ones(len(own), bool))):
                delta = torch.zeros(batch.modality_bs.shape[1], whole.d_model)
                for p, k, z in zip(position_e[chosen], feature_e[chosen], z_e[chosen], strict=True):
                    delta[p] += float(z) * saev.directions_fd[k].float()
                ends = [logprob(whole, batch, b, int(position), sign * step * delta) for sign in (1, -1)]
                assert result[b][t, i] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=2e-2, rel=2e-2)


def logprob(mllm: Mllm, batch: Any, b: int, position: int, delta_sd: torch.Tensor) -> float:
    def change(h_bsd: torch.Tensor) -> torch.Tensor:
        h_bsd[b] += delta_sd
        return h_bsd

    with torch.inference_mode(), replace(mllm.decoder_layer(), mllm.layer, change):
        logits = mllm.model(**mllm.causal_inputs(batch), use_cache=False).logits[b, position - 1]
    return float(logits.double().log_softmax(-1)[batch.inputs["input_ids"][b, position]])


def test_pairs_are_read_in_their_order(whole: Mllm, saev: SaeV) -> None:
    f = saev.n_features
    engine = Engine(whole, saev, SCALE, np.full(f, 2.0), np.ones(f))
    texts = [f"word{i} red dog" for i in range(18)]
    readings = list(read_pairs(engine, (Pair(text, [tiny.picture(i)]) for i, text in enumerate(texts))))
    assert len(readings) == 18
    for one, text in zip(readings, texts, strict=True):
        assert "".join(one.words) == text.replace(" ", "")
        assert len(one.patch_pf) == one.grid[0] * one.grid[1] and one.token_tf.shape == (len(one.word_t), f)
        assert 0 < one.patch_pf.max() <= 1 and np.isnan(one.attribution_t2).all()
    (alone,) = read_pairs(engine, [Pair(texts[17], [tiny.picture(17)])])
    assert alone.token_tf == pytest.approx(readings[17].token_tf, abs=2e-3)


def test_the_way_is_chosen_by_the_scenes_of_its_kind() -> None:
    kinds = np.array(["place", "place", "number"])
    ways = {"a": np.array([1.0, 1, 0, 0, 0, 1]), "b": np.array([0.0, 0, 1, 1, 1, 0])}
    measured = told_apart(ways, kinds)
    assert measured == {"a": {"place": 1.0, "number": 0.0}, "b": {"place": 0.0, "number": 1.0}}
    assert choose("place", measured) == "a" and choose("number", measured) == "b"
    assert choose("ridge-support", {"a": {"x": 0.5, "y": 0.8}, "b": {"x": 0.7, "y": 0.7}}) == "b"

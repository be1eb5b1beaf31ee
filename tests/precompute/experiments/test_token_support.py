"""The ways to say that no patch supports a word: against loops, against the flag, and on the tests' demo."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from precompute.experiments import token_support as T
from precompute.experiments.script import run_script
from precompute.scoring.pairs import TextEvents
from precompute.scoring.scores import Weights
from precompute.scoring.token_support import unsupported_tokens
from tests.helpers.demo import Demo


def subset(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.random(shape) * (rng.random(shape) < 0.6)


def test_the_share_is_the_flags_own_arithmetic() -> None:
    rng = np.random.default_rng(0)
    reads = [T.Read(subset(rng, 5, 7), subset(rng, 7), 1.0) for _ in range(4)]
    support, rarity = rng.random(7), rng.random(7)
    got = T.compare(reads, Weights(support, support), rarity, T.Predicted(rng.random((4, 7)), rng.random(7)))
    assert set(got) == set(T.WAYS)
    for i, read in enumerate(reads):
        token, feature = np.nonzero(read.token_tf)
        image = csr_matrix(read.image_f[None])
        events = TextEvents(np.zeros(len(token), int), token, feature, read.token_tf[token, feature])
        flagged = unsupported_tokens(events, image, np.ones(7), support)
        assert got["share"][i] == pytest.approx(-flagged.share_t.max())
        by_hand = [sum(support[k] * max(z - read.image_f[k], 0) for k, z in enumerate(z_f)) for z_f in read.token_tf]
        assert got["sum"][i] == pytest.approx(-max(by_hand))


def test_prediction_against_fits_without_the_pair() -> None:
    rng = np.random.default_rng(0)
    text, image, new = subset(rng, 12, 6), subset(rng, 12, 6), subset(rng, 3, 6)
    got = T.predict(text, image, new)
    rarity = T.rarity(image)
    known, unknown = T.unit(image * rarity), T.unit(new * rarity)
    mean = text.mean(0)

    def fitted(rows: list[int], vectors: np.ndarray) -> np.ndarray:
        """Ridge in the primal: (XᵀX + λI)⁻¹ Xᵀ y."""
        x = known[rows]
        slope = np.linalg.solve(x.T @ x + T.RIDGE * np.eye(6), x.T @ (text[rows] - mean))
        return vectors @ slope

    assert got.ratio_nf == pytest.approx(np.clip(mean + fitted(list(range(12)), unknown), 0, 1))
    left_out = np.stack([fitted([j for j in range(12) if j != i], known[i]) for i in range(12)])
    explained = 1 - ((text - mean - left_out) ** 2).sum(0) / ((text - mean) ** 2).sum(0)
    assert got.weight_f == pytest.approx(T.rarity(text) * np.maximum(explained, 0))


def test_the_strongest_are_kept() -> None:
    rng = np.random.default_rng(0)
    ratio = rng.random((2, T.KEPT_MAXIMA + 50))
    remaining = T.keep_strongest(ratio)
    assert ((remaining > 0).sum(1) == T.KEPT_MAXIMA).all()
    assert remaining.max() == ratio.max() and remaining[remaining > 0].min() > ratio[remaining == 0].min()


def test_the_command_keeps_what_is_reported(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "wrong-pairs.json"
    out.write_text('{"kinds": 1}')
    options = ["--demo", demo.root, "--out", out, "--n-scenes", 6]
    monkeypatch.setattr(sys, "argv", ["token_support", *map(str, options)])
    run_script(T.Options, T.__doc__)
    result = json.loads(out.read_text())
    assert result["kinds"] == 1 and str(demo.root) not in out.read_text()
    whole = result["development"]["kinds"]["whole"]["auroc"]
    assert set(whole) == set(result["development"]["ways"]) == set(T.WAYS)
    assert whole["share"]["value"] > 0.9 and whole["caption-nll"]["value"] > 0.9

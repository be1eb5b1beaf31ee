"""Every score again, exactly, with plain NumPy from the stored events."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from precompute.scoring.pairs import StoredPairs
from precompute.scoring.scores import Weights, pair_scores
from precompute.store.making.unfinished import load_json, load_step
from precompute.store.schema import IMAGE, SCORES, TEXT
from precompute.utils.stats import auroc, derangement, histogram
from tests.helpers.unfinished import Part


def maxima(part: Part, row: int) -> tuple[dict[int, float], dict[int, float], int, int]:
    """Largest z per feature on text and on the image, events and counted tokens, read event by event."""
    e, result = part.data.events, ({}, {})
    n_events = n_tokens = 0
    for t in range(int(e.sample_token[row]), int(e.sample_token[row + 1])):
        kind = int(e.token_modality[t])
        if kind not in (TEXT, IMAGE):
            continue
        n_tokens += 1
        for i in range(int(e.token_event[t]), int(e.token_event[t + 1])):
            k, z = int(e.event_feature[i]), float(e.event_value[i]) * part.data.unit
            result[kind][k] = max(result[kind].get(k, 0.0), z)
            n_events += 1
    return result[0], result[1], n_events, n_tokens


def test_scores_are_exactly_those_of_the_events(part: Part) -> None:
    result, weigh = load_step(part.path, "score"), load_step(part.path, "weigh")
    omega, n = weigh["omega"], part.data.n_samples
    n_text = np.zeros(part.data.n_features, int)
    samples = [maxima(part, row) for row in range(n)]
    for text, *_ in samples:
        for k in text:
            n_text[k] += 1
    w = np.maximum(np.log(n / (1 + n_text)), 0) * np.maximum(np.nan_to_num(weigh["omega_centred"]), 0)
    for row, (text, image, n_events, n_tokens) in enumerate(samples):
        every = {k: max(text.get(k, 0), image.get(k, 0)) for k in sorted({*text, *image})}
        both = sorted(set(text) & set(image))
        with_omega = [k for k in every if not np.isnan(omega[k])]
        total = 0.0
        for k in with_omega:
            total += omega[k]
        assert result["cosine"][row] == total
        if with_omega:
            assert result["cosine-mean"][row] == total / len(with_omega)
        else:
            assert np.isnan(result["cosine-mean"][row])
        top = sorted(sorted(every, key=lambda k: (-every[k], k))[:32])
        up = down = 0.0
        for k in top:
            if not np.isnan(omega[k]):
                up, down = up + omega[k] * every[k], down + every[k]
        assert np.isnan(result["cosine-weighted"][row]) if down == 0 else result["cosine-weighted"][row] == up / down
        shared = 0.0
        for k in both:
            shared += np.nan_to_num(omega[k])
        assert result["cosine-cooccurring"][row] == shared
        assert result["cooccurring-l0"][row] == len(both)
        dot = a = b = 0.0
        for k in both:
            dot += text[k] * image[k]
        for k in sorted(text):
            a += text[k] ** 2
        for k in sorted(image):
            b += image[k] ** 2
        assert result["pooled-cosine"][row] == (dot / np.sqrt(a * b) if a and b else 0.0)
        whole = part_ = 0.0
        for k in sorted(text):
            whole += w[k]
        for k in both:
            part_ += w[k]
        assert result["supported-share"][row] == (part_ / whole if whole else 0.0)
        assert result["l0"][row] == n_events / n_tokens


def test_every_name_is_scored_and_described(part: Part) -> None:
    result, described = load_step(part.path, "score"), load_json(part.path, "score")
    assert set(result) == set(SCORES) == {d["name"] for d in described}
    nll = part.data.sample["caption_nll"]
    assert np.array_equal(result["caption-nll"], -nll, equal_nan=True)
    gain = part.data.sample["caption_nll_alone"] - nll
    assert np.array_equal(result["image-gain"], gain, equal_nan=True) and 0 < np.isnan(gain).sum() < len(gain)
    length = part.data.sample["n_text"] + part.data.sample["n_image"]
    for entry in described:
        values = result[entry["name"]]
        finite = np.isfinite(values)
        assert entry["length_rho"] == pytest.approx(stats.spearmanr(values[finite], length[finite]).statistic)
        assert sum(entry["hist"]["counts"]) == finite.sum()


def test_calibration_by_captions_that_were_read_beside_other_images(part: Part) -> None:
    sample = part.data.sample
    own: dict[str, list[float]] = {"caption-nll": [], "image-gain": []}
    other: dict[str, list[float]] = {"caption-nll": [], "image-gain": []}
    for row, caption in enumerate(sample["other_row"].tolist()):
        if caption >= 0 and np.isfinite(sample["other_nll"][row]):
            own["caption-nll"].append(-sample["caption_nll"][row])
            other["caption-nll"].append(-sample["other_nll"][row])
            own["image-gain"].append(sample["caption_nll_alone"][row] - sample["caption_nll"][row])
            other["image-gain"].append(sample["caption_nll_alone"][caption] - sample["other_nll"][row])
    result = {d["name"]: d["auroc"] for d in load_json(part.path, "score")}
    for name in own:
        wins = [(a > b) + 0.5 * (a == b) for a in own[name] for b in other[name] if not np.isnan(a + b)]
        assert len(wins) >= 400 and result[name]["value"] == pytest.approx(np.mean(wins))


def test_calibration_tells_what_works(part: Part) -> None:
    """METHOD's table: the sums are reversed, the pooled cosine and supported share work."""
    result = {d["name"]: d["auroc"] for d in load_json(part.path, "score")}
    assert result["pooled-cosine"]["value"] > 0.9
    assert result["supported-share"]["value"] > 0.9
    assert result["cosine"]["value"] < 0.5
    assert result["random"] is None and result["l0"] is None
    for entry in (e for e in result.values() if e):
        assert entry["low"] <= entry["value"] <= entry["high"]


def test_one_pair_is_scored_as_in_a_block(part: Part) -> None:
    result, weigh = load_step(part.path, "score"), load_step(part.path, "weigh")
    weights = Weights.from_step(weigh, part.manifest, part.data.n_samples)
    for row in (0, 7, 31):
        alone = pair_scores(StoredPairs(part.data, np.array([row])), weights, int(part.options["seed"]))
        assert set(alone) == set(SCORES)
        for name in SCORES:
            assert np.array_equal(alone[name], result[name][[row]], equal_nan=True), name


def test_auroc_counts_ties_half() -> None:
    got = auroc(np.array([1.0, 2, 3, np.nan]), np.array([0.0, 2, 5]))
    pairs = [(p, n) for p in (1, 2, 3) for n in (0, 2, 5)]
    assert got is not None
    assert got["value"] == pytest.approx(np.mean([(p > n) + 0.5 * (p == n) for p, n in pairs]))
    assert auroc(np.array([np.nan]), np.array([1.0])) is None


@pytest.mark.parametrize("n", [2, 3, 10, 101])
def test_derangement_moves_everything(n: int) -> None:
    moved = derangement(n, np.random.default_rng(0))
    assert sorted(moved) == list(range(n))
    assert (moved != np.arange(n)).all()


@given(
    st.floats(-1e30, 1e30),
    st.lists(st.integers(0, 60), max_size=20),
    st.sampled_from([0.0, 1e-300, 1e-18, 1e-9, 1.0, 1e9]),
    st.booleans(),
)
def test_a_histogram_of_whatever_range(middle: float, steps: list[int], step: float, missing: bool) -> None:
    """Values that differ by next to nothing too, as the scores of equal samples do."""
    values = np.array([middle + i * step for i in steps] + [np.nan] * missing)
    result = histogram(values)
    assert sum(result["counts"]) == len(steps)
    if steps:
        edges = np.array(result["edges"])
        assert len(edges) == len(result["counts"]) + 1 and (np.diff(edges) > 0).all()
        assert edges[0] <= np.nanmin(values) and np.nanmax(values) <= edges[-1]

"""Patch filtering's arithmetic beside a naive reference: scores, ranks, painted pictures, intervals."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from precompute.geometry import View, painting
from precompute.model.batch import IMAGE, SINK, SPECIAL, TEXT, Pair
from precompute.model.mllm import Mllm
from precompute.patches import ranking as patches
from precompute.patches.ranking import FULL, NONE, WITHOUT
from precompute.sae.encode import EncodedBatch, Scale, encode_batch
from precompute.sae.sae import SaeV
from tests.helpers import tiny
from tests.helpers.patch_reference import Array, features_of, naive, naive_masks
from tests.helpers.tinies import Tiny

SCALE = Scale(2, (float("inf"), float("inf")))


# ---- scores


@pytest.mark.parametrize("seed", range(8))
def test_scores_of_random_events(seed: int) -> None:
    """Special tokens and sinks among them, features without ω, a sample without text."""
    rng = np.random.default_rng(seed)
    n_features, n_tokens = 40, 30
    modality_t = rng.choice([TEXT, IMAGE, SPECIAL, SINK] if seed else [IMAGE, SPECIAL], n_tokens).astype(np.uint8)
    own_features = [
        np.sort(rng.choice(n_features, rng.integers(0, 12), replace=False)) if kind <= IMAGE else np.zeros(0, np.int64)
        for kind in modality_t
    ]
    offset_t = np.concatenate([[0], np.cumsum([len(own) for own in own_features])])
    feature_e = np.concatenate(own_features).astype(np.int64)
    z_e = rng.exponential(3, len(feature_e))
    features = features_of(rng, n_features)
    patch_p = np.flatnonzero((modality_t == IMAGE) | (modality_t == SINK))
    result = patches.patch_scores(offset_t, feature_e, z_e, modality_t, patch_p, features)
    for name, values in naive(offset_t, feature_e, z_e, modality_t, features).items():
        np.testing.assert_allclose(result[name], values, rtol=1e-12, err_msg=name)
    assert result["l0"].any() and (seed == 0) == (not result["cooccurring-l0"].any())


def encoded(mllm: Mllm, sae: SaeV, pair: Pair) -> EncodedBatch:
    batch = mllm.prepare([pair])
    return encode_batch(mllm.hidden(batch), batch, sae, SCALE)


def test_scores_of_a_models_own_events(mllm: Mllm, tiny_files: Tiny) -> None:
    sae = SaeV.load(tiny_files.sae)
    rng = np.random.default_rng(0)
    features = features_of(rng, sae.n_features)
    one = encoded(mllm, sae, Pair("the red dog is on the left of a big ball", [tiny.picture(3)]))
    z_e = np.ldexp(one.value_e.astype(np.float64), -SCALE.log2)
    patch_p = np.flatnonzero(one.modality_t == IMAGE)
    result = patches.patch_scores(one.offset_t, one.feature_e, z_e, one.modality_t, patch_p, features)
    for name, values in naive(one.offset_t, one.feature_e, z_e, one.modality_t, features).items():
        np.testing.assert_allclose(result[name], values, rtol=1e-12, err_msg=name)
        assert len(set(values)) > 1, name
    assert (result["cooccurring-l0"] <= result["l0"]).all()


def test_sinks_have_no_feature(mllm: Mllm, tiny_files: Tiny) -> None:
    """A patch that is a sink stays a patch, with nothing to its score."""
    sae, pair = SaeV.load(tiny_files.sae), Pair("the red dog", [tiny.picture(3)])
    batch = mllm.prepare([pair])
    hidden_bsd = mllm.hidden(batch)
    image_s = batch.modality_bs[0] == IMAGE
    limit = float(np.median(encoded(mllm, sae, pair).norm_t[image_s]))
    one = encode_batch(hidden_bsd, batch, sae, Scale(2, (float("inf"), limit)))
    patch_p = np.flatnonzero(image_s)
    z_e = one.value_e.astype(np.float64)
    n = sae.n_features
    features = patches.FeatureWeights(np.ones(n), np.ones(n, dtype=bool), np.arange(n))
    result = patches.patch_scores(one.offset_t, one.feature_e, z_e, one.modality_t, patch_p, features)
    sink_p = one.modality_t[patch_p] == SINK
    assert sink_p.sum() == len(patch_p) // 2
    for name in patches.SCORES:
        assert not result[name][sink_p].any()
    assert result["l0"][~sink_p].all()


@pytest.mark.parametrize("keep", [0.1, 25, 50, 75, 99, 100])
@pytest.mark.parametrize("n", [1, 2, 7, 49, 576])
def test_best_are_the_first_of_a_sorted_list(n: int, keep: float) -> None:
    score_p = np.random.default_rng(n).integers(0, 9, n) / 3
    order = sorted(range(n), key=lambda p: (-score_p[p], p))
    n_kept = max(1, int(n * keep / 100 + 0.5))
    assert np.flatnonzero(patches.best_patches(score_p, keep)).tolist() == sorted(order[:n_kept])


def test_chance_is_the_ids_own() -> None:
    first = patches.chances("a", 50, 0)
    assert np.array_equal(first, patches.chances("a", 50, 0)) and first.min() >= 0 and first.max() < 1
    others = [patches.chances("b", 50, 0), patches.chances("a", 50, 1)]
    assert all(not np.array_equal(first, other) for other in others)
    remaining = np.mean([patches.best_patches(patches.chances(str(i), 49, 0), 25) for i in range(2000)], axis=0)
    assert np.abs(remaining - 12 / 49).max() < 0.05  # no place is preferred


# ---- pictures


VIEWS = [
    View(3, 4, (0.0, 0.0, 50.0, 37.0), 0),
    View(2, 2, (10.0, 5.0, 40.0, 33.0), 0),  # over the first
    View(3, 3, (-4.0, -3.0, 47.0, 30.0), 1),  # beyond the picture's edge
    View(2, 5, (3.3, 2.7, 39.1, 21.9), 1),  # edges at no whole pixel
]
SIZES = [(50, 37), (41, 23)]
N_PATCHES = sum(view.rows * view.cols for view in VIEWS)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.8])
def test_pixels_left_by_several_views_of_several_images(share: float) -> None:
    rng = np.random.default_rng(int(10 * share))
    kept_p = rng.random(N_PATCHES) < share
    images = [Image.fromarray(rng.integers(1, 255, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]
    masks = painting.visible_pixels(painting.regions(VIEWS, SIZES), kept_p, SIZES)
    for mask, expected in zip(masks, naive_masks(VIEWS, kept_p, SIZES), strict=True):
        assert np.array_equal(mask, expected)
    for colour in ((0, 0, 0), (124, 116, 104)):
        for image, painted, mask in zip(images, painting.paint(images, masks, colour), masks, strict=True):
            before, after = np.asarray(image), np.asarray(painted)
            assert painted.mode == "RGB" and painted.size == image.size
            assert np.array_equal(after[mask], before[mask]) and (after[~mask] == colour).all()
    assert any(mask.any() for mask in masks) == (share > 0)


def test_neighbours_share_no_pixel_and_leave_none_out() -> None:
    for rows, cols, width, height in ((16, 16, 40, 40), (7, 7, 224, 224), (9, 5, 101, 77), (24, 24, 403, 161)):
        times = np.zeros((height, width), dtype=int)
        view = View(rows, cols, (0, 0, width, height), 0)
        for _, top, bottom, left, right in painting.regions([view], [(width, height)]):
            times[top:bottom, left:right] += 1
        assert (times == 1).all()


def test_a_patch_smaller_than_a_pixel_keeps_the_one_it_lies_in() -> None:
    where = painting.regions([View(24, 24, (0.0, 0.0, 10.0, 10.0), 0)], [(10, 10)])
    for p, (_, top, bottom, left, right) in enumerate(where):
        row, col = divmod(p, 24)
        assert top <= (row + 0.5) / 2.4 < bottom and left <= (col + 0.5) / 2.4 < right
        assert 0 <= top < bottom <= 10 and 0 <= left < right <= 10


def test_with_all_patches_the_picture_is_untouched() -> None:
    """Also where no patch looks."""
    image = tiny.picture(0, (60, 40))
    where = painting.regions([View(4, 4, (10.0, 0.0, 50.0, 40.0), 0)], [image.size])
    (same,) = painting.paint([image], painting.visible_pixels(where, np.ones(16, dtype=bool), [image.size]))
    assert np.array_equal(np.asarray(same), np.asarray(image))
    (fewer,) = painting.visible_pixels(where, np.arange(16) > 0, [image.size])
    assert not fewer[:, :10].any() and not fewer[:, 50:].any() and fewer.sum() == 1500


def test_a_black_patch_changes_that_patch_of_the_models_input(mllm: Mllm) -> None:
    """What the tower is given: the painted patch is black, and apart from the resampling at its edge nothing else
    is touched."""
    image = tiny.picture(1, (44, 40))
    batch = mllm.prepare([Pair("a", [image])])
    before = batch.inputs["pixel_values"][0].numpy()
    (black,) = mllm.prepare([Pair("a", [Image.new("RGB", image.size)])]).inputs["pixel_values"].numpy()
    where = painting.regions(batch.views[0], [image.size])
    for p in range(16):
        masks = painting.visible_pixels(where, np.arange(16) != p, [image.size])
        after = mllm.prepare([Pair("a", painting.paint([image], masks))]).inputs["pixel_values"][0].numpy()
        row, col = divmod(p, 4)
        inner = np.zeros((tiny.SIDE, tiny.SIDE), dtype=bool)
        inner[8 * row + 2 : 8 * row + 6, 8 * col + 2 : 8 * col + 6] = True
        np.testing.assert_allclose(after[:, inner], black[:, inner], atol=0.1)
        near = np.zeros_like(inner)
        near[max(8 * row - 2, 0) : 8 * row + 10, max(8 * col - 2, 0) : 8 * col + 10] = True
        near[:, [0, 1, -2, -1]] = True  # beside the crop all is black, and resampling reaches across its edge
        moved = np.abs(after - before).max(0) > 0.02
        assert moved[inner].any() and not moved[~near].any(), p


# ---- figures


def outcome(n: int = 60) -> tuple[dict[Any, Array], dict[Any, Array], list[str | None]]:
    rng = np.random.default_rng(4)
    hit = {FULL: rng.random(n) < 0.9}
    hit |= {(NONE, 0.0, removed): rng.random(n) < 0.1 for removed in ("drop", "mean")}
    for name, share in (("l0", 0.7), ("random", 0.3)):
        for keep in (50.0, 25.0):
            for removed in ("drop", "mean"):
                hit[name, keep, removed] = rng.random(n) < share * keep / 50
    for name in ("l0", "random"):
        hit[WITHOUT + name, 25.0, "drop"] = rng.random(n) < 0.6
    hit["l0", 50.0, "drop"][:5] = True
    pixels = {v: np.full(n, v[1] / 100) for v in hit}
    return hit, pixels, [("shape", "colour", None)[i % 3] for i in range(n)]


def test_figures_beside_a_plain_bootstrap() -> None:
    hit, pixels, kinds = outcome()
    result = patches.figures(hit, pixels, kinds, 700, 3)
    rng = np.random.default_rng(3)
    picked = np.concatenate([rng.integers(0, 60, (size, 60)) for size in (256, 256, 188)])
    ends = {FULL: result["full"], **{(NONE, 0.0, way): of for way, of in result["none_by_removed"].items()}}
    assert result["none"] == ends[NONE, 0.0, "drop"] and len(result["none_by_removed"]) == 2
    items = {**ends, **{(one["score"], one["keep"], one["removed"]): one for one in result["kept"]}}
    out = {(WITHOUT + one["score"], one["knock_out"], one["removed"]): one for one in result["knocked_out"]}
    items |= out
    own, chance = (hit[WITHOUT + name, 25.0, "drop"].mean() for name in ("l0", "random"))
    assert out[WITHOUT + "l0", 25.0, "drop"]["over_random"]["value"] == pytest.approx(own - chance, abs=1e-4)
    assert "over_random" not in out[WITHOUT + "random", 25.0, "drop"]
    assert list(items) == list(hit)
    for variant, item in items.items():
        own = hit[variant]
        assert (item["hits"], item["n"]) == (own.sum(), 60) and item["accuracy"] == pytest.approx(own.mean(), abs=1e-4)
        low, high = np.percentile([own[rows].mean() for rows in picked], [2.5, 97.5])
        assert (item["low"], item["high"]) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
        assert set(item["kinds"]) == {"shape", "colour"} and item["kinds"]["shape"]["n"] == 20
        assert item["kinds"]["shape"]["hits"] == own[0::3].sum() and item["kinds"]["colour"]["hits"] == own[1::3].sum()
    for item in result["kept"]:
        own, chance = (hit[name, item["keep"], item["removed"]] for name in (item["score"], "random"))
        ratio = [own[rows].mean() / hit[FULL][rows].mean() for rows in picked]
        assert item["of_full"]["value"] == pytest.approx(own.mean() / hit[FULL].mean(), abs=1e-4)
        assert item["of_full"]["low"] == pytest.approx(np.percentile(ratio, 2.5), abs=1e-4)
        assert item["pixels"] == item["keep"] / 100
        if item["score"] == "random":
            assert "over_random" not in item
            continue
        gap = [own[rows].mean() - chance[rows].mean() for rows in picked]  # the same questions on both sides
        low, high = np.percentile(gap, [2.5, 97.5])
        assert item["over_random"]["value"] == pytest.approx(own.mean() - chance.mean(), abs=1e-4)
        assert item["over_random"]["low"] == pytest.approx(low, abs=1e-4)
        assert item["over_random"]["high"] == pytest.approx(high, abs=1e-4)


def test_the_same_answers_differ_by_nothing() -> None:
    """Paired: the difference of a score that answers as chance does has no width."""
    hit, pixels, _ = outcome()
    hit["l0", 25.0, "drop"] = hit["random", 25.0, "drop"]
    result = patches.figures(hit, pixels, [None] * 60, 300, 0)
    item = next(one for one in result["kept"] if (one["score"], one["keep"], one["removed"]) == ("l0", 25.0, "drop"))
    assert item["over_random"] == {"value": 0.0, "low": 0.0, "high": 0.0} and "kinds" not in item


def test_no_ratio_to_nothing() -> None:
    hit, pixels, kinds = outcome()
    hit[FULL] = np.zeros(60, dtype=bool)
    assert all(item["of_full"] is None for item in patches.figures(hit, pixels, kinds, 100, 0)["kept"])

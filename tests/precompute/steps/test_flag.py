"""Flags on planted faults, and their arithmetic."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from scipy.sparse import csr_matrix

from precompute.scoring import near_duplicates as duplicates
from precompute.scoring import pixels
from precompute.scoring import token_support as support
from precompute.scoring.flags import pair_fvu
from precompute.scoring.pairs import StoredPairs, TextEvents
from precompute.steps import flag
from precompute.store.making.unfinished import load_json, load_step
from precompute.store.reader import Store
from precompute.store.schema import FLAGS
from precompute.utils.text import has_letters, repeated_share
from tests.helpers.unfinished import Part


def planted(part: Part, kind: str) -> list[int]:
    return [r["row"] for r in part.data.samples if r["extra"]["planted"] == kind]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("empty", "empty-text"),
        ("repeated", "repeated-text"),
        ("tiny", "tiny"),
        ("blank", "blank"),
        ("dark", "dark"),
        ("blurred", "blurred"),
    ],
)
def test_planted_faults_are_flagged(part: Part, kind: str, name: str) -> None:
    score, table = load_step(part.path, "flag")[name], load_json(part.path, "flag")["flags"]
    threshold = next(f["threshold"] for f in table if f["name"] == name)
    rows = planted(part, kind)
    assert rows and (score[rows] > threshold).all()
    sound = planted(part, None)  # type: ignore[arg-type]
    assert (score[sound] > threshold).mean() < 0.02


def test_wrong_captions_are_flagged_with_their_words(part: Part) -> None:
    result, saved = load_step(part.path, "flag"), load_json(part.path, "flag")
    table = {f["name"]: f for f in saved["flags"]}
    rows, sound = planted(part, "caption"), planted(part, None)  # type: ignore[arg-type]
    for name in ("mismatch", "unsupported"):
        above = result[name] > table[name]["threshold"]
        assert above[rows].mean() > 0.5 and above[sound].mean() < 0.08
        assert table[name]["auroc_low"] <= table[name]["auroc"] <= table[name]["auroc_high"]
        assert table[name]["auroc"] > 0.85
    why = {row: reason for row, name, reason in saved["reasons"] if name == "mismatch"}
    both_wrong = [r for r in rows if r in why]
    for row in both_wrong:
        message = set(part.data.samples[row]["text"].split())
        assert why[row]["features"]
        assert {token.strip() for token in why[row]["tokens"]} & {*message, "umb"}


def test_counts_and_reasons_follow_the_threshold(part: Part) -> None:
    result, saved = load_step(part.path, "flag"), load_json(part.path, "flag")
    assert [f["name"] for f in saved["flags"]] == list(FLAGS)
    for f in saved["flags"]:
        over = np.flatnonzero(result[f["name"]] > f["threshold"])
        assert f["count"] == len(over)
        assert sorted(row for row, name, _ in saved["reasons"] if name == f["name"]) == over.tolist()
        assert sum(f["hist"]["counts"]) == np.isfinite(result[f["name"]]).sum()


def test_false_alarm_rate_is_five_percent(part: Part) -> None:
    table = {f["name"]: f for f in load_json(part.path, "flag")["flags"]}
    score = load_step(part.path, "flag")["mismatch"]
    rate = (score > table["mismatch"]["threshold"]).sum() / np.isfinite(score).sum()
    assert 0.03 <= rate <= 0.07


def test_unsupported_tokens_against_loops() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((3, 8)) * (rng.random((3, 8)) < 0.5)
    support_f = rng.random(8)
    events = [(r, p, k, rng.random() * 1.3) for r in range(3) for p in range(4) for k in range(8) if rng.random() < 0.4]
    columns = [np.array(x) for x in zip(*events, strict=True)]
    got = support.unsupported_tokens(TextEvents(*columns), csr_matrix(image), np.ones(8), support_f)
    for row, position, share, feature in zip(*got, strict=True):
        ratio = {k: min(v, 1) for r, p, k, v in events if (r, p) == (row, position)}
        lack = {k: support_f[k] * max(v - min(image[row, k], 1), 0) for k, v in ratio.items()}
        whole = sum(support_f[k] * v for k, v in ratio.items())
        assert share == pytest.approx(sum(lack.values()) / (whole + support.LITTLE_WEIGHT))
        assert feature == (max(lack, key=lambda k: (lack[k], -k)) if max(lack.values()) > 0 else -1)
    assert len(got.row_t) == len({(r, p) for r, p, *_ in events})


def test_a_weak_word_that_the_picture_lacks_outweighs_a_strong_one_that_it_shows() -> None:
    """Token 0: strong features, three quarters of them on the patches. Token 1: weak ones, none on a patch. Token 2:
    next to nothing, none on a patch."""
    image = csr_matrix(np.array([[0.75, 0.75, 0.0, 0.0]]))
    row, position, feature = np.zeros(4, int), np.array([0, 0, 1, 2]), np.array([0, 1, 2, 3])
    events = TextEvents(row, position, feature, np.ones(4))
    got = support.unsupported_tokens(events, image, np.ones(4), np.array([6.0, 6.0, 2.0, 0.01]))
    assert got.share_t[1] > got.share_t[0] > got.share_t[2]
    assert got.feature_t.tolist() == [0, 2, 3]
    none = TextEvents(row[:0], position[:0], feature[:0], np.zeros(0))
    nothing = support.unsupported_tokens(none, image, np.ones(4), np.ones(4))
    assert not len(nothing.share_t)


def test_the_worst_tokens_are_named_words_first() -> None:
    share, feature = np.array([0.9, 0.8, 0.3, 0.5, 0.85]), np.array([4, 1, 2, 3, -1])
    tokens = support.UnsupportedTokens(np.zeros(5, np.int64), np.arange(5) + 10, share, feature)
    pieces = {10: ",", 11: " dog", 12: " a", 13: " cat", 14: " of"}

    def named(candidates: list[int]) -> list[int]:
        return support.most_unsupported(tokens, np.array(candidates, dtype=np.int64), pieces.__getitem__).tolist()

    assert named([0, 1, 2, 3, 4]) == [1, 3], "punctuation is left out, and what lacks less than half as much"
    assert named([0]) == [0], "but for want of anything else"
    pieces[12], share[2] = " photo", 0.6  # of the image itself, of which nobody expects to see anything
    assert named([0, 1, 2, 3, 4]) == [1, 3] and named([0, 2]) == [2]
    assert named([]) == named([4]) == []


def test_near_duplicates_flag_the_later_one() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((6, 256)).astype(np.float32)
    vectors[4] = vectors[1] + 0.01
    vectors[5] = vectors[2]  # alike inside the model, but not to the eye
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    hashes = rng.random((6, 64)) < 0.5
    hashes[4] = hashes[1]
    hashes[4, 0] ^= True
    near = duplicates.near_duplicates(vectors, hashes, np.arange(6))
    assert near.score[4] > 0.9 and near.row[4] == 1 and near.row[1] == 4
    assert (np.delete(near.score, 4) < duplicates.NEAR_LIMIT).all()
    crowd = np.concatenate([vectors, np.repeat(vectors[1:2], 12, axis=0) + 0.001])  # nearer inside the model
    many = duplicates.near_duplicates(crowd, np.concatenate([hashes, rng.random((12, 64)) < 0.5]), np.arange(18))
    assert many.score[4] > 0.9 and many.row[4] == 1
    alone = duplicates.near_duplicates(vectors[:1], hashes[:1], np.arange(1))
    assert np.isnan(alone.score[0]) and alone.row[0] == -1


def test_pixel_flags_of_real_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (12, 12, 3)).astype(np.uint8)
    busy = Image.fromarray(noise).resize((200, 200), Image.Resampling.NEAREST)
    plain = Image.new("RGB", (200, 200), (230, 230, 240))
    ImageDraw.Draw(plain).ellipse((60, 60, 110, 110), fill="red")
    cases = {
        "busy": (busy, set()),
        "plain": (plain, set()),  # little entropy, but a subject
        "soft busy": (busy.filter(ImageFilter.GaussianBlur(8)), {"blurred"}),
        "soft plain": (plain.filter(ImageFilter.GaussianBlur(8)), {"blurred"}),
        "blank": (Image.new("RGB", (200, 200), "grey"), {"blank"}),
        "black": (Image.new("RGB", (200, 200), (5, 5, 5)), {"blank", "dark"}),
    }
    files = []
    for name, (picture, _) in cases.items():
        files.append(tmp_path / f"{name}.png")
        picture.save(files[-1])
    result, limits = pixels.pixel_flags(files), dict(pixels.ISSUES.values())
    for i, (name, (_, expected)) in enumerate(cases.items()):
        assert {f for f in limits if result[f][i] > limits[f]} == expected, name


def test_pixel_hash_is_near_for_a_brighter_copy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 200, (9, 9, 3)).astype(np.uint8)).resize((90, 90)) for _ in range(2)]
    pictures.append(pictures[0].point(lambda v: v + 10))
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    bits = pixels.pixel_hashes([tmp_path / f"{i}.png" for i in range(3)])
    assert (bits[0] != bits[2]).sum() <= 4 < 16 <= (bits[0] != bits[1]).sum()


def test_tiny_is_about_the_shorter_side() -> None:
    got = pixels.tiny(np.array([64, 640, 0]), np.array([640, 32, 0]))
    assert got[:2].tolist() == [1.0, 2.0] and np.isnan(got[2])


@pytest.mark.parametrize(
    ("text", "share"),
    [("a dog", 0), ("a red dog on a plain ground", 0), ("a dog a dog a dog", 3 / 5), ("", 0)],
)
def test_repeated_share(text: str, share: float) -> None:
    assert repeated_share(text) == pytest.approx(share)


def test_empty_text() -> None:
    assert not has_letters("") and not has_letters(" … !") and has_letters("é")


def test_fvu_per_sample_and_overall(part: Part) -> None:
    overall, variance = flag.variance_of(part.data)
    pairs = StoredPairs(part.data, np.arange(part.data.n_samples))
    text, image = pair_fvu(pairs.error_nm, pairs.n_tokens_nm, (variance["text"], variance["image"])).T
    s = part.data.sample
    for name, values in (("text", text), ("image", image)):
        n = s[f"n_{name}"]
        np.testing.assert_allclose(np.nansum(values * n) / n.sum(), overall[name])
        assert 0 < overall[name] < 1
    assert np.isnan(text[planted(part, "empty")]).all()


def test_reader_shows_reasons_with_labels(made_up: Store) -> None:
    worst = made_up.samples.list(flag="mismatch", sort="mismatch", order="desc", limit=5).items
    assert worst
    for item in worst:
        hits = {h["name"]: h for h in made_up.samples.get(item["sample_id"])["flags"]}
        assert hits["mismatch"]["score"] > hits["mismatch"]["threshold"]
        assert hits["mismatch"]["reason"]["features"][0]["label"]


def test_many_are_compared_through_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond EXACT samples: copies with a little noise are still found, and nothing else is raised."""
    rng = np.random.Generator(np.random.PCG64(3))
    n, copies = 3000, 200
    vectors = rng.normal(size=(n, 256)).astype(np.float32)
    hashes = rng.random((n, 64)) < 0.5
    vectors[-copies:] = vectors[:copies] + 0.1 * rng.normal(size=(copies, 256))
    hashes[-copies:] = hashes[:copies] ^ (rng.random((copies, 64)) < 0.03)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    exact = duplicates.near_duplicates(vectors, hashes, np.arange(n))
    monkeypatch.setattr(duplicates, "EXACT", 1000)
    many = duplicates.near_duplicates(vectors, hashes, np.arange(n))
    raised, expected = (set(np.flatnonzero(near.score > duplicates.NEAR_LIMIT)) for near in (many, exact))
    assert expected == set(range(n - copies, n))
    assert raised <= expected and len(raised) > 0.98 * copies
    result = sorted(raised)
    assert (many.row[result] == exact.row[result]).all()

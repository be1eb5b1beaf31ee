"""`saevx patches` from the data to its file, beside a naive run: one picture at a time, no batch, no shared answer."""

import json
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from precompute.data.images import open_image
from precompute.errors import SaevxError
from precompute.live.engine import encode_pair, load_sae
from precompute.model.batch import IMAGE, Pair
from precompute.model.mllm import Mllm
from precompute.model.vision import capture_vision_norms
from precompute.options.patches import PatchesOptions
from precompute.options.precompute import PrecomputeOptions
from precompute.patches import run as under_test
from precompute.patches.answers import beginnings, greedy
from precompute.patches.ranking import CONTROLS, SCORES, FeatureWeights, best_patches, chances
from precompute.patches.run import patches_data
from precompute.pipeline import precompute
from precompute.scoring.scores import Weights
from precompute.store.reader import Store
from tests.helpers import tiny
from tests.helpers.demo import Demo
from tests.helpers.in_process import saevx
from tests.helpers.patch_reference import naive, naive_masks, speech
from tests.helpers.tinies import Tiny

KEEP, OUT = [100.0, 60.0, 25.0], 40.0
REMOVED = ["black", "mean", "drop"]
N = 10


class Asked(NamedTuple):
    """Questions about pictures, some of them two a row, that the tiny model mostly answers as it did before."""

    data: Path
    store: Path
    model: Path
    sae: Path


def spoken(mllm: Mllm, pair: Pair, n_tokens: int) -> list[str]:
    """The beginnings of what the model says, up to so many tokens."""
    return list(islice(speech(mllm, pair), n_tokens))


def says(mllm: Mllm, pair: Pair, answer: str, kept_p: Any = None) -> bool:
    """Whether the first four tokens begin with the answer; none is made once they cannot. The last character may still
    lack some of its bytes."""
    for text in islice(speech(mllm, pair, kept_p), 4):
        if text == answer or not answer.startswith(text.rstrip("\ufffd").rstrip()):
            return text == answer
    return False


@pytest.fixture(scope="module")
def query(tiny_files: Tiny, whole: Mllm, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    root = tmp_path_factory.mktemp("asked")
    sae = tiny.make_sae(root / "sae", bias=-0.2)
    store = precompute(
        PrecomputeOptions(
            data=str(tiny_files.data), model=str(tiny_files.model), sae=str(sae), out=root / "store",
            batch_tokens=150, shard_samples=8, ds=40, device="cpu",
        )
    )  # fmt: skip
    data = root / "data"
    data.mkdir()
    rng = np.random.default_rng(1)
    rows = []
    for i in range(N):
        names = [f"{i}-{j}.png" for j in range(1 + i % 2)]
        images = [tiny.picture(50 + 10 * i + j, (40 + 3 * i, 40)) for j in range(len(names))]
        for name, image in zip(names, images, strict=True):
            image.save(data / name)
        text = " ".join(rng.choice(tiny.WORDS, size=2 + i % 4))
        sentence = spoken(whole, Pair(text, images), 1 + i % 3)[-1]
        answer = sentence.upper() if sentence and i % 5 else "something else"
        rows.append({"file_names": names, "text": text, "id": f"q{i}", "answer": answer, "kind": ["one", "two"][i % 2]})
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Asked(data, store, tiny_files.model, sae)


@pytest.fixture
def options(query: Asked, tmp_path: Path) -> Any:
    def make(**changed: Any) -> PatchesOptions:
        given: dict[str, Any] = {
            "data": str(query.data), "store": query.store, "out": tmp_path / "patches.json", "keep": KEEP,
            "device": "cpu", "resamples": 200,
        }  # fmt: skip
        return PatchesOptions(**{**given, **changed})

    return make


def naive_hits(query: Asked, mllm: Mllm) -> dict[Any, list[bool]]:
    """Every variant of every question by itself, in the data's order."""
    store = Store.open(query.store)
    sae = load_sae(query.store, store.manifest, None, "cpu")
    features = FeatureWeights.from_store(store)
    omega_f = Weights.from_store(store).omega_f
    assert 0 < np.isnan(omega_f).sum() < len(omega_f) and np.array_equal(features.omega_f, np.nan_to_num(omega_f))
    hits: dict[Any, list[bool]] = {}
    for line in (query.data / "metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        images = [open_image(query.data / name).image for name in row["file_names"]]
        sizes = [image.size for image in images]
        pair = Pair(row["text"], images)
        one = encode_pair(mllm, sae, store.manifest, pair)
        batch = mllm.prepare([pair])
        with capture_vision_norms(mllm) as caught:
            mllm.hidden(batch)
        z_e = one.value_e.astype(np.float64) * 2.0**-store.scale_log2
        score: dict[str, Any] = naive(one.offset_t, one.feature_e, z_e, one.modality_t, features)
        n = int((batch.modality_bs == IMAGE).sum())
        assert n == 16 * len(images) == len(score["l0"])
        score["random"], score["vision-norm"] = chances(row["id"], n, 0), caught.of(batch)[0][0]
        visible = {("full", 100.0, ""): np.ones(n, dtype=bool)}
        for removed in REMOVED:
            visible["none", 0.0, removed] = np.zeros(n, dtype=bool)
            for name, score_p in score.items():
                visible |= {(name, keep, removed): best_patches(np.array(score_p, float), keep) for keep in KEEP}
                visible[f"without {name}", OUT, removed] = ~best_patches(np.array(score_p, float), OUT)
        answer = row["answer"].lower()
        is_hit: dict[tuple[str, bytes], bool] = {}  # two scores may keep the same patches
        for variant, kept_p in visible.items():
            removed = "" if kept_p.all() else variant[2]
            if (removed, kept_p.tobytes()) in is_hit:
                pass
            elif removed in ("", "drop"):
                is_hit[removed, kept_p.tobytes()] = says(mllm, pair, answer, kept_p)
            else:
                colour = tuple(round(255 * x) for x in mllm.processor.image_processor.image_mean)
                paint = colour if removed == "mean" else (0, 0, 0)
                painted = [
                    Image.composite(image, Image.new("RGB", image.size, paint), Image.fromarray(mask))
                    for image, mask in zip(images, naive_masks(one.views, kept_p, sizes), strict=True)
                ]
                is_hit[removed, kept_p.tobytes()] = says(mllm, Pair(row["text"], painted), answer)
            hits.setdefault(variant, []).append(is_hit[removed, kept_p.tobytes()])
    store.close()
    return hits


def found_in(report: dict[str, Any]) -> dict[Any, dict[str, Any]]:
    remaining = {(item["score"], item["keep"], item["removed"]): item for item in report["kept"]}
    for item in report.get("knocked_out", []):
        remaining[f"without {item['score']}", item["knock_out"], item["removed"]] = item
    none = {("none", 0.0, removed): item for removed, item in report["none_by_removed"].items()}
    return {("full", 100.0, ""): report["full"], **none, **remaining}


def test_as_a_naive_run_counts(options: Any, query: Asked, whole: Mllm) -> None:
    report = json.loads(patches_data(options(removed=REMOVED, knock_out=[OUT])).read_text())
    result, expected = found_in(report), naive_hits(query, whole)
    assert set(result) == set(expected) and len(result) == 1 + 3 * (1 + 8 * (len(KEEP) + 1))
    for variant, hits in expected.items():
        item = result[variant]
        assert (item["hits"], item["n"]) == (sum(hits), N), variant
        assert item["kinds"]["one"]["hits"] == sum(hits[0::2]) and item["kinds"]["two"]["hits"] == sum(hits[1::2])
        assert item["low"] <= item["accuracy"] <= item["high"]
    assert 0 < report["none"]["hits"] + 1 < report["full"]["hits"] < N  # the picture matters, and so do the answers
    assert len({item["hits"] for item in report["kept"]}) > 2
    assert report["data"]["patches"] == {"mean": 24.0, "least": 16, "most": 32}
    assert report["vision_norm"]["projector"]["questions"] == N
    assert report["store"]["content_id"] == Store.open(query.store).manifest["content_id"]
    assert set(report["scores"]) == {*SCORES, *CONTROLS} == {item["score"] for item in report["kept"]}
    for path in (query.data, query.store, query.model):
        assert str(path.parent) not in json.dumps(report)


def test_with_all_patches_nothing_changes(options: Any) -> None:
    """Every score, bit for bit."""
    report = json.loads(patches_data(options(keep=[100])).read_text())
    for item in report["kept"]:
        assert item.pop("pixels") == 1.0 and item.pop("of_full") == {"value": 1.0, "low": 1.0, "high": 1.0}
        assert item.pop("over_random", {"value": 0.0, "low": 0.0, "high": 0.0})["value"] == 0.0
        assert {name: item[name] for name in report["full"]} == report["full"]


def test_the_same_bytes_again_and_other_batches_the_same_hits(options: Any, tmp_path: Path) -> None:
    first = patches_data(options()).read_bytes()
    assert patches_data(options(out=tmp_path / "again.json")).read_bytes() == first
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob("*.tmp"))
    other = json.loads(patches_data(options(out=tmp_path / "other.json", batch_tokens=60)).read_text())
    for variant, item in found_in(json.loads(first)).items():
        assert found_in(other)[variant]["hits"] == item["hits"], variant


def test_a_killed_run_goes_on(options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind its last whole line, to the same bytes; with other patches it refuses."""
    expected = patches_data(options()).read_bytes()
    out = tmp_path / "killed.json"
    answered: list[str] = []
    answer = under_test.Job.answer

    def counting(job: under_test.Job, group: Any) -> Any:
        for one in answer(job, group):
            if len(answered) == 6:
                raise KeyboardInterrupt
            answered.append(one.sample_id)
            yield one

    monkeypatch.setattr(under_test, "GROUP", 4)
    monkeypatch.setattr(under_test.Job, "answer", counting)
    with pytest.raises(KeyboardInterrupt):
        patches_data(options(out=out))
    part = out.with_name("killed.json.part")
    outcomes = part / "outcomes.jsonl"
    assert not out.exists() and len(outcomes.read_text().splitlines()) == 6
    outcomes.write_bytes(outcomes.read_bytes()[:-9])  # the last line only half on the disk
    with pytest.raises(SaevxError, match="other data, store or options"):
        patches_data(options(out=out, keep=[50]))
    with pytest.raises(SaevxError, match="other data, store or options"):
        patches_data(options(out=out, removed=["drop"]))
    before, answered = answered, []
    assert patches_data(options(out=out)).read_bytes() == expected
    assert answered[0] == before[-1] and len(answered) == N - 5 and not part.exists()


def test_what_cannot_be_asked_is_set_aside_and_counted(options: Any, query: Asked, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    good = {"image": str(query.data / "0-0.png"), "text": "a red dog", "answer": "cat"}
    rows = [
        {**good, "id": "fine"}, {**good, "answer": 3}, {"text": "no picture", "answer": "cat"},
        {"image": good["image"], "text": "no answer"}, {**good, "answer": "  "}, {**good, "answer": ["a", "b"]},
        {**good, "text": " "}, {**good, "text": "an <image> mark"}, {**good, "image": "missing.png"},
    ]  # fmt: skip
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = json.loads(patches_data(options(data=str(data), allow_outside=True)).read_text())
    assert report["data"]["questions"] == 2 and "kinds" not in report["full"]
    aside = report["data"]["set_aside"]
    assert aside["n"] == sum(aside["reasons"].values()) == 7
    assert [one["index"] for one in aside["first"]] == [2, 3, 4, 5, 6, 7, 8]
    reasons = (
        "no field 'image'", "no field 'answer'", "is empty", "neither a string nor", "no question", "mark for an image",
        "no image missing.png",
    )  # fmt: skip
    for one, words in zip(aside["first"], reasons, strict=True):
        assert words in one["reason"]


def test_max_samples_takes_those_with_the_smallest_hash(options: Any, tmp_path: Path) -> None:
    from precompute.data.batches import smallest_hashes

    ids = [f"q{i}" for i in range(N)]
    report = json.loads(patches_data(options(max_samples=4)).read_text())
    chosen = smallest_hashes(ids, 4)
    assert report["data"]["questions"] == 4
    assert report["full"]["kinds"]["one"]["n"] == sum(i % 2 == 0 for i in chosen)


@pytest.mark.parametrize("n_tokens", [2, 5])
def test_greedy_text_is_the_models_own(whole: Mllm, n_tokens: int) -> None:
    """Beside a loop that runs the whole sequence for every token."""
    pair = Pair("a big dog on the left", [tiny.picture(8)])
    batch = whole.prepare([pair, pair], generate=True)
    for ids in greedy(whole, batch, n_tokens):
        assert beginnings(whole, ids) == set(spoken(whole, pair, n_tokens))
    with pytest.raises(ValueError, match="padding"):
        greedy(whole, whole.prepare([pair, Pair("a", pair.images)], generate=True), 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": "/no/such/place"}, "no data at"),
        ({"store": Path("/no/such/place")}, "not a store"),
        ({"answer_column": "reply"}, "no field 'reply'. Name the fields with .*--answer-column"),
        ({"sae": "/no/such/place"}, "cannot be loaded|no folder"),
    ],
)
def test_wrong_input_is_one_sentence(options: Any, changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SaevxError, match=message) as caught:
        patches_data(options(**changed))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_data_without_pictures_or_answers(options: Any, tiny_files: Tiny, tmp_path: Path) -> None:
    with pytest.raises(SaevxError, match="the first: it has no field 'answer'"):
        patches_data(options(data=str(tiny_files.data)))
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "how many?", "answer": "two"}\n')
    with pytest.raises(SaevxError, match="the first: it has no image"):
        patches_data(options(data=str(texts)))


def test_the_command(query: Asked, tmp_path: Path) -> None:
    out = tmp_path / "new" / "patches.json"
    command = ["patches", query.data, "--store", query.store, "--out", out, "--device", "cpu", "--resamples", 50]
    done = saevx(*command, "--keep", "50,25", "--max-samples", 3)
    assert done.status == 0 and done.out.strip() == str(out), done.err
    assert "3 questions, 0 rows rejected" in done.err
    for name in (*SCORES, *CONTROLS):
        assert name in done.err
    again = saevx(*command)
    assert again.status == 1 and "exists already" in again.err and len(again.err.strip().splitlines()) == 1
    for keep in ("0", "101", "-5", "half"):
        wrong = saevx(*command, "--keep", keep)
        assert wrong.status == 2 and wrong.err.startswith("saevx: --keep"), wrong.err
        assert len(wrong.err.strip().splitlines()) == 1
    out.unlink()
    out.with_name("patches.json.part").write_text("notes of my own")
    blocked = saevx(*command)
    assert blocked.status == 1 and "unfinished run" in blocked.err and len(blocked.err.strip().splitlines()) == 1


def test_the_demos_patches_matter(demo: Demo, tmp_path: Path) -> None:
    """The real model on its own questions: right with the picture, lost in the dark."""
    from precompute.experiments.questions import write

    write(tmp_path / "questions", 8)
    out = tmp_path / "patches.json"
    done = saevx(
        "patches", tmp_path / "questions", "--store", demo.store, "--out", out, "--keep", 25, "--resamples", 50
    )
    assert done.status == 0, done.err
    report = json.loads(out.read_text())
    assert report["full"]["hits"] >= 7 and report["none"]["hits"] <= 3
    assert set(report["full"]["kinds"]) == {"object", "shape", "shape-colour", "background"}
    assert all(item["pixels"] == pytest.approx(12 / 49, abs=1e-4) for item in report["kept"])

"""Rejected rows are said with their kinds of reason, at the beginning and at the end of a run; no row ends one."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from precompute.data.records import Columns, RejectedRow
from precompute.data.rejections import KINDS, all_rejected_message, count_kinds, kind_of, summary, summary_of
from precompute.data.rows import read
from precompute.store.reader import Store
from tests.helpers import tiny
from tests.helpers.in_process import saevx
from tests.helpers.tinies import Tiny

REASONS = {
    "its id 'a\nb' stands in an earlier row": "repeated-id",
    "its id is neither a string nor a whole number": "odd-id",
    "shard x.tar cannot be read from sample 3 on (unexpected end of data)": "damaged-tar",
    "shard x.tar is compressed: unpack it first": "damaged-tar",
    "it is not valid JSON": "not-json",
    "it is not valid Unicode (UTF-8)": "not-json",
    "of its member a.json: it is not valid JSON": "not-json",
    "its image is an address on the web, not a file: http://example.com/a.png": "web-image",
    "its image ../a.png lies outside the image folder": "outside-image",
    "its image a.png is a folder, a FIFO or a device, not a regular file": "unreadable-image",
    "its image's name caf\\xe9.png is not valid Unicode (UTF-8)": "odd-image-name",
    "there is no image a.png": "missing-image",
    "it has an image, and the model reads text only": "text-model",
    "it has no field 'text'": "no-text",
    "it has no text (no field 'words')": "no-text",
    "its field 'text' is not a string": "no-text",
    "a turn of its conversation has no text": "no-text",
    "it has no field 'file_name'": "no-image",
    "it has no image": "no-image",
    "it has no field 'photo'": "no-field",
    "it has neither image nor text": "no-text",
    "its field 'image' is not a path": "no-image",
    "its image cannot be read (not an image of a known format)": "unreadable-image",
    "its image is a strip of 2100 × 10 pixels": "unreadable-image",
    "its text speaks of 2 images, and it has 1": "image-marks",
    "its text holds <image>, the model's mark for an image": "image-marks",
    "it has 900 tokens, more than the model's context of 256": "too-long",
    "the model's processor refuses it (no)": "processor",
    "the model's residual stream is not finite": "not-finite",
    "an activation is too large for float16 at this store's scale": "not-finite",
    "something new": "other",
}


def test_every_reason_has_its_kind() -> None:
    assert {reason: kind_of(reason) for reason in REASONS} == REASONS
    assert {kind.name for kind in KINDS} == set(REASONS.values())


def test_every_reason_of_the_readers_has_a_kind_of_its_own() -> None:
    """What the modules that read rows raise is not "other": their texts, with anything in the places of values."""
    texts = []
    for path in sorted((Path(__file__).parents[3] / "precompute" / "data").glob("*.py")):
        texts += re.findall(r'BadRow\(\s*f?"((?:[^"\\]|\\.)*)"', path.read_text())
    assert len(texts) > 20
    others = [text for text in texts if kind_of(re.sub(r"\{[^}]*\}", "x", text)) == "other"]
    assert not others


def test_the_summary_counts_the_most_frequent_first_and_says_what_helps() -> None:
    reasons = ["its id 'a' stands in an earlier row"] * 1000 + ["its image cannot be read (no)"] * 200 + ["odd"]
    report = summary(count_kinds(reasons))
    assert report == (
        "1201 rows rejected: 1000 repeat the id of an earlier row (use --id-column row to number them), "
        "200 have no readable image, 1 has other reasons"
    )
    assert "--id-column" not in summary(count_kinds(reasons), "row") and summary({}) == ""
    assert summary({"no-text": 1}).startswith("1 row rejected: 1 has no text")
    rows = [RejectedRow(i, str(i), reason) for i, reason in enumerate(reversed(reasons))]
    assert summary_of(rows) == report
    message = all_rejected_message("No row of X can be used", rows)
    assert message == f"No row of X can be used: {report}; the first: odd."


# ---- whole runs


@pytest.fixture
def odd_pairs(tmp_path: Path) -> Path:
    """Twelve pairs, six rows that repeat their ids, and four more that cannot be used."""
    folder = tiny.make_data(tmp_path / "data", 12)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    (folder / "bad.png").write_bytes(b"no image")
    rows += [{**row, "text": "again"} for row in rows[:6]]
    rows += [{"file_name": "bad.png", "text": "a"}, {"file_name": "gone.png", "text": "a"}, {"file_name": "000.png"}]
    tiny.picture(0).save(tmp_path / "secret.png")
    rows += [{"file_name": "../secret.png", "text": "a"}]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


WHOLE = [
    "6 repeat the id of an earlier row (use --id-column row to number them)",
    "1 has no readable image",
    "1 has no text",
    "1 names an image that is not there",
    "1 names an image outside the image folder",
    "--allow-outside reads images anywhere",
]


def lines_with(text: str, what: str) -> list[str]:
    return [line for line in text.splitlines() if what in line]


def test_a_pass_says_at_its_beginning_and_at_its_end_what_it_rejects(odd_pairs: Path, tiny_files: Tiny) -> None:
    out = odd_pairs.parent / "store"
    command = ["precompute", odd_pairs, "--model", tiny_files.model, "--sae", tiny_files.sae, "--out", out]
    done = saevx(*command, "--device", "cpu", "--ds", 5)
    assert done.status == 0, done.err
    first, last = lines_with(done.err, "rows rejected: ")
    assert first.startswith("9 rows rejected: ") and last.startswith("10 rows rejected: ")
    assert all(part in last for part in WHOLE) and done.err.splitlines()[-1] == last
    store = Store.open(out)
    try:
        assert store.rejected.counts == {
            "repeated-id": 6, "missing-image": 1, "no-text": 1, "outside-image": 1, "unreadable-image": 1
        }  # fmt: skip
        assert store.rejected.kinds[0]["sentence"] == "6 repeat the id of an earlier row"
        page = store.rejected.list(limit=4)
        assert [one["row"] for one in page.items] == [12, 13, 14, 15] and page.total == 10
        assert page.items[0] == {
            "row": 12,
            "id": "pair-0",
            "reason": "its id 'pair-0' stands in an earlier row",
            "kind": "repeated-id",
        }
        rest = store.rejected.list(limit=100, cursor=page.next)
        assert len(rest.items) == 6 and rest.next is None
        (one,) = store.rejected.list(kind="no-text").items
        assert one["row"] == 20 and store.rejected.list(kind="no-text").total == 1
        assert store.rejected.list(kind="processor").items == [] and store.rejected.list().total == 10
    finally:
        store.close()
    numbered = [*command[:-1], odd_pairs.parent / "numbered", "--device", "cpu", "--id-column", "row", "--ds", 5]
    done = saevx(*numbered, "--allow-outside")
    assert done.status == 0 and "3 rows rejected" in done.err and "--id-column" not in done.err
    with closing(sqlite3.connect(odd_pairs.parent / "numbered" / "store.sqlite")) as base:
        ids = [name for (name,) in base.execute("SELECT sample_id FROM samples ORDER BY row")]
    assert ids == [*(str(i) for i in range(18)), "21"]


@pytest.mark.parametrize("command", ["train", "evaluate", "score"])
def test_the_other_commands_say_it_too(
    odd_pairs: Path, tiny_files: Tiny, command: str, store_of_pairs: Path, tmp_path: Path
) -> None:
    own: list[object] = {
        "train": [
            odd_pairs, "--model", tiny_files.model, "--layer", tiny.LAYER, "--out", tmp_path / "sae", "--steps", 2,
            "--batch-size", 32, "--expansion", 1, "--buffer-tokens", 2000,
        ],
        "evaluate": [tiny_files.sae, odd_pairs, "--model", tiny_files.model, "--resamples", 10],
        "score": [odd_pairs, "--store", store_of_pairs, "--out", tmp_path / "scores.jsonl"],
    }[command]  # fmt: skip
    done = saevx(command, *own, "--device", "cpu")
    assert done.status == 0, done.err
    report = lines_with(done.err, "rows rejected: ")
    assert len(report) == (1 if command == "score" else 2), "score cannot know before it has read the data"
    assert report[-1].startswith("10 rows rejected: ") and all(part in report[-1] for part in WHOLE)


@pytest.fixture(scope="module")
def store_of_pairs(tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pairs") / "store"
    done = saevx(
        "precompute", tiny_files.data, "--model", tiny_files.model, "--sae", tiny_files.sae, "--out", out,
        "--device", "cpu",
    )  # fmt: skip
    assert done.status == 0 and "rejected: " not in done.err, done.err
    return out


# ---- a model that reads images, and data without


def commands(source: object, tiny_files: Tiny, store: Path, folder: Path) -> dict[str, list[object]]:
    return {
        "precompute": [source, "--model", tiny_files.model, "--sae", tiny_files.sae, "--out", folder / "new"],
        "train": [
            source, "--model", tiny_files.model, "--layer", tiny.LAYER, "--out", folder / "sae", "--steps", 2,
            "--batch-size", 32, "--expansion", 1, "--buffer-tokens", 2000,
        ],
        "evaluate": [tiny_files.sae, source, "--model", tiny_files.model, "--resamples", 10],
        "score": [source, "--store", store, "--out", folder / "scores.jsonl"],
    }  # fmt: skip


COMMANDS = ["precompute", "train", "evaluate", "score"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_that_reads_images_is_not_left_without_in_silence(
    tmp_path: Path, tiny_files: Tiny, store_of_pairs: Path, command: str
) -> None:
    """Refused in a sentence that names both ways out, of which one is then gone."""
    path = tmp_path / "web.jsonl"
    rows = [{"url": f"https://example.com/{i}.jpg", "caption": f"a red dog and {i} cats"} for i in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = commands(path, tiny_files, store_of_pairs, tmp_path)[command]
    done = saevx(command, *own, "--device", "cpu")
    assert done.status == 1 and len(done.err.strip().splitlines()) == 1, done.err
    assert all(word in done.err for word in ("--image-column", "--text-only", "'url'", "reads images"))
    done = saevx(command, *own, "--device", "cpu", "--text-only")
    assert done.status == 0, done.err


@pytest.mark.parametrize("command", COMMANDS)
def test_text_only_reads_pairs_as_texts(tmp_path: Path, tiny_files: Tiny, store_of_pairs: Path, command: str) -> None:
    own = commands(tiny_files.data, tiny_files, store_of_pairs, tmp_path)[command]
    done = saevx(command, *own, "--device", "cpu", "--text-only")
    assert done.status == 0, done.err
    if command == "precompute":
        store = Store.open(tmp_path / "new")
        assert store.manifest["tokens"]["image"] == 0 and store.n_samples == 40
        assert store.manifest["options"]["text_only"] is True
        store.close()
    if command == "evaluate":
        assert json.loads(done.out)["options"]["text_alone"] is True
    if command == "train":
        assert json.loads((tmp_path / "sae" / "training.json").read_text())["options"]["modality"] == "text"
    if command == "score":
        lines = (tmp_path / "scores.jsonl").read_text().splitlines()
        assert {json.loads(line)["n_image"] for line in lines} == {0}


def test_a_table_of_texts_needs_no_word(tmp_path: Path, tiny_files: Tiny, store_of_pairs: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"text": [f"a red dog and {i} cats" for i in range(8)]}), tmp_path / "t.parquet")
    for command in COMMANDS:
        own = commands(tmp_path / "t.parquet", tiny_files, store_of_pairs, tmp_path)[command]
        done = saevx(command, *own, "--device", "cpu")
        assert done.status == 0, (command, done.err)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_the_names_of_the_fields(
    tmp_path: Path, tiny_files: Tiny, store_of_pairs: Path, command: str
) -> None:
    """What a refusal advises must be there to do."""
    folder = tiny.make_data(tmp_path / "data", 12)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    rows = [{"photo": row["file_name"], "picture": row["file_name"], "words": row["text"], "id": "a"} for row in rows]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = [*commands(folder, tiny_files, store_of_pairs, tmp_path)[command], "--device", "cpu"]
    done = saevx(command, *own, "--text-column", "words")
    assert done.status == 1 and "photo, picture all name image files" in done.err, done.err
    done = saevx(command, *own, "--text-column", "words", "--image-column", "Photo", "--id-column", "row")
    assert done.status == 0 and "rejected: " not in done.err, done.err


def test_a_guess_at_the_field_of_the_images_is_said(tmp_path: Path, tiny_files: Tiny) -> None:
    folder = tiny.make_data(tmp_path / "data", 12)
    text = (folder / "metadata.jsonl").read_text().replace("file_name", "photo")
    (folder / "metadata.jsonl").write_text(text)
    own = commands(folder, tiny_files, tmp_path, tmp_path)["precompute"]
    done = saevx("precompute", *own, "--device", "cpu")
    assert done.status == 0 and "field 'photo'" in done.err and "--image-column" in done.err, done.err
    store = Store.open(tmp_path / "new")
    assert store.manifest["tokens"]["image"] > 0 and store.manifest["options"]["image_column"] is None
    store.close()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mistake_of_the_whole_data_is_said_once(
    tmp_path: Path, tiny_files: Tiny, store_of_pairs: Path, command: str
) -> None:
    """Not as the trouble of its first row, and with what to do; data without a row is called empty."""
    tables: dict[str, list[dict[str, Any]]] = {
        "there is no row in it": [],
        "12 name an image that is not there (--image-folder": [{"file_name": "x/a.png", "text": "a"}] * 12,
        "12 have no text (--text-column": [{"file_name": "000.png", "words": "a"}] * 12,
    }
    for words, rows in tables.items():
        folder = tiny.make_data(tmp_path / "data", 2)
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
        own = commands(folder, tiny_files, store_of_pairs, tmp_path)[command]
        done = saevx(command, *own, "--device", "cpu")
        assert done.status == 1 and words in done.err, done.err
        assert len([line for line in done.err.splitlines() if line.startswith("saevx: ")]) == 1


def test_a_model_that_reads_text_only_says_how_to_leave_the_images_out(tmp_path: Path, tiny_files: Tiny) -> None:
    llama = tiny.make_llama(tmp_path / "llama")
    own = commands(tiny_files.data, tiny_files._replace(model=llama), tmp_path, tmp_path)["precompute"]
    done = saevx("precompute", *own, "--device", "cpu")
    assert done.status == 1 and "40 have an image, and the model reads text only (--text-only" in done.err
    assert saevx("precompute", *own, "--device", "cpu", "--text-only").status == 0


def test_a_million_reasons_are_read_one_by_one(tmp_path: Path) -> None:
    """The reader holds what it must: rows, reasons and ids, and no list of records beside them."""
    import tracemalloc

    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {i}", "n": [i] * 20}) + "\n" for i in range(4000)))
    read(path)
    tracemalloc.start()
    data = read(path, Columns(text="text"))
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data.rows) == 4000 and peak < 1.15 * now

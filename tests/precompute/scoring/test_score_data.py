"""`saevx score`: new pairs through the model with a finished store's ω, as the store itself would score them."""

import json
import os
import shutil
import signal
import subprocess
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from precompute.errors import SaevxError
from precompute.options.score import ScoreOptions
from precompute.scoring import new_data as under_test
from precompute.scoring.new_data import Seen, score_data
from precompute.scoring.score_file import COLUMNS, rows_of
from precompute.store.reader import Store
from precompute.store.schema import FLAGS, SCORES, flag_column, score_column
from tests.helpers import tiny
from tests.helpers.forked import start
from tests.helpers.in_process import saevx
from tests.helpers.tinies import Tiny, make_tiny_store


@pytest.fixture(scope="module")
def store(tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With caption-nll, and an SAE-V that gives a fifth of its features an ω."""
    root = tmp_path_factory.mktemp("scored")
    sae = str(tiny.make_sae(root / "sae", bias=-0.2))
    run_options = {"batch_tokens": 150, "shard_samples": 8, "ds": 40}
    return make_tiny_store(tiny_files.root, sae=sae, out=root / "store", nll=True, **run_options)


@pytest.fixture
def query(tiny_files: Tiny, store: Path, tmp_path: Path) -> Any:
    def make(**changed: Any) -> ScoreOptions:
        given: dict[str, Any] = {
            "data": str(tiny_files.data),
            "store": store,
            "out": tmp_path / "scores.jsonl",
            "nll": True,
            "device": "cpu",
        }
        return ScoreOptions(**{**given, **changed})

    return make


def stored(store: Path) -> dict[str, dict[str, Any]]:
    """What the store says of each sample, by id."""
    opened = Store.open(store)
    result = {i["sample_id"]: opened.samples.get(i["sample_id"]) for i in opened.samples.list(limit=1000).items}
    opened.close()
    return result


def test_stored_pairs_get_their_stored_scores(query: Any, store: Path) -> None:
    """In batches cut as the store's were: the very numbers, flags and thresholds."""
    rows, known = list(rows_of(score_data(query()))), stored(store)
    assert [row["id"] for row in rows] == [f"pair-{i}" for i in range(40)]
    informative = 0
    for row in rows:
        item = known[row["id"]]
        assert {name: row[score_column(name)] for name in SCORES} == item["scores"], row["id"]
        for name in FLAGS:
            if name != "near-duplicate":
                assert row[flag_column(name)] == item["flag_scores"][name], (row["id"], name)
        assert set(row["flags"]) == {hit["name"] for hit in item["flags"]} - {"near-duplicate"}
        assert (row["n_text"], row["n_image"]) == (item["n_text"], item["n_image"])
        informative += sum(row[score_column(name)] not in (None, 0) for name in SCORES)
    assert informative > 9 * len(rows) and any(row["flags"] for row in rows)


def test_other_batches_change_only_the_last_digits(query: Any, store: Path) -> None:
    rows, known = list(rows_of(score_data(query(batch_tokens=30, shard_samples=7)))), stored(store)
    for row in rows:
        for name, value in known[row["id"]]["scores"].items():
            assert row[score_column(name)] == pytest.approx(value, rel=5e-3, abs=5e-3), name


def test_without_nll_that_score_is_null(query: Any, store: Path) -> None:
    rows, known = list(rows_of(score_data(query(nll=False)))), stored(store)
    assert all(row["score_caption_nll"] is None is row["score_image_gain"] for row in rows)
    assert all(row["score_cosine"] == known[row["id"]]["scores"]["cosine"] for row in rows)


def test_parquet_holds_the_same(query: Any, tmp_path: Path, store: Path) -> None:
    from pyarrow import parquet

    rows = list(rows_of(score_data(query(shard_samples=16))))
    out = score_data(query(out=tmp_path / "scores.parquet", shard_samples=16))
    assert list(rows_of(out)) == rows
    report = json.loads(parquet.read_schema(out).metadata[b"saevx"])
    assert report["content_id"] == Store.open(store).manifest["content_id"]


def test_bad_rows_are_set_aside_and_counted(
    query: Any, tiny_files: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_files.data, data)
    listing = (data / "metadata.jsonl").read_text().splitlines()
    (data / "cut.png").write_bytes((data / "000.png").read_bytes()[:40])
    bad = [
        '{"file_name": "cut.png", "text": "a dog", "id": "cut"}',
        "{no json",
        '{"file_name": "001.png", "text": "a cat", "id": "pair-0"}',
        '{"file_name": "002.png", "text": "a <image>", "id": "mark"}',
    ]
    (data / "metadata.jsonl").write_text("\n".join([*listing[:20], *bad, *listing[20:]]) + "\n")
    out = score_data(query(data=str(data), shard_samples=8))
    assert [row["id"] for row in rows_of(out)] == [f"pair-{i}" for i in range(40)]
    aside = [json.loads(line) for line in (tmp_path / "scores.quarantine.jsonl").read_text().splitlines()]
    assert [one["index"] for one in aside] == [20, 21, 22, 23]
    reasons = ("cannot be read", "not valid JSON", "'pair-0' stands in an earlier row", "mark for an image")
    for one, words in zip(aside, reasons, strict=True):
        assert words in one["reason"]
    report = capsys.readouterr().err
    assert "40 pairs, 4 rows rejected" in report and "scores.quarantine.jsonl" in report


def test_closing_lines_show_the_correlation_with_length(
    query: Any, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same pairs, so the same figures as the store's own."""
    score_data(query())
    lines = {words[0]: words for line in capsys.readouterr().err.splitlines() if (words := line.split())}
    opened = Store.open(store)
    for entry in opened.quality.scores:
        shown = lines[entry["name"]][-1]
        assert shown == ("–" if entry["length_rho"] is None else f"{entry['length_rho']:+.2f}")
        assert float(lines[entry["name"]][1]) == pytest.approx(entry["mean"], rel=1e-3)
    assert sum(entry["length_rho"] is not None for entry in opened.quality.scores) >= 9
    opened.close()


def test_a_killed_run_goes_on_and_gives_the_same_bytes(query: Any, store: Path, tmp_path: Path) -> None:
    whole = score_data(query(shard_samples=4)).read_bytes()
    out = tmp_path / "killed.jsonl"
    job = start(
        "score", query().data, "--store", store, "--out", out, "--nll", "--device", "cpu", "--shard-samples", "4",
        stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    part, end = out.with_name("killed.jsonl.part"), time.monotonic() + 600
    while not (part / "000001.jsonl").exists() and job.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.002)
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert not out.exists() and part.is_dir()
    done = sorted(path.name for path in part.glob("*.jsonl"))
    stamps = {name: (part / name).stat().st_mtime_ns for name in done}
    with pytest.raises(SaevxError, match="other data, store or options"):
        score_data(query(out=out, shard_samples=5))
    ran: list[int] = []
    scored = under_test.Job.score

    def count(job: under_test.Job, rows: list[Any]) -> Any:
        ran.append(len(rows))
        assert {name: (part / name).stat().st_mtime_ns for name in done} == stamps
        return scored(job, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(under_test.Job, "score", count)
        score_data(query(out=out, shard_samples=4))
    assert out.read_bytes() == whole and not part.exists()
    assert len(done) >= 2 and len(ran) == 10 - len(done)


def test_memory_does_not_grow_with_the_data(
    query: Any, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight times the rows, and the same peak; the model is left out, as a shard costs it the same."""
    monkeypatch.setattr(under_test.Job, "score", lambda _, rows: ([{"id": row.sample_id} for row in rows], []))
    opened, peaks = Store.open(store), []
    for n in (1000, 8000):
        path = tmp_path / f"{n}.jsonl"
        path.write_text("".join(json.dumps({"text": f"pair {i} " * 20}) + "\n" for i in range(n)))
        job = under_test.Job(query(data=str(path), out=tmp_path / f"{n}-scores.jsonl", shard_samples=500), opened)
        tracemalloc.start()
        assert job.run() == (n, 0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    opened.close()
    assert peaks[1] < 1.5 * peaks[0]


def test_every_column_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "store.md").read_text().partition("The file of `saevx score`")[2]
    for column in COLUMNS:
        kind, _, rest = column.partition("_")
        assert f"`{column}`" in page or (rest and f"`{kind}_…`" in page), column


def test_ids_are_remembered_on_disk(tmp_path: Path) -> None:
    with Seen(tmp_path / "ids") as seen:
        assert [seen.is_new(x) for x in ("a", "b", "a", "é", "b", "é")] == [True, True, False, True, False, False]
    with Seen(tmp_path / "ids") as again:
        assert again.is_new("a")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": "/no/such/place"}, "no data at"),
        ({"store": Path("/no/such/place")}, "not a store"),
        ({"out": Path("scores.csv")}, r"\.jsonl or \.parquet"),
        ({"sae": "/no/such/place"}, "cannot be loaded|no folder"),
    ],
)
def test_wrong_input_is_one_sentence(query: Any, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(SaevxError, match=message) as caught:
        score_data(query(**changed))
    assert "\n" not in str(caught.value)


def test_nothing_to_score(query: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": 3}\n')
    made = query(data=str(path))
    with pytest.raises(SaevxError, match="the first: its field 'text' is not a string"):
        score_data(made)
    assert not made.part.exists()


def test_a_device_that_is_not_there_does_not_stand_in_the_way_of_one_that_is(query: Any, tmp_path: Path) -> None:
    with pytest.raises(SaevxError, match="cuda:99"):
        score_data(query(device="cuda:99"))
    assert score_data(query()) and (tmp_path / "scores.jsonl").exists()


def test_another_sae_is_refused(query: Any, tmp_path: Path) -> None:
    other = tiny.make_sae(tmp_path / "other", architecture="topk", k=4)
    with pytest.raises(SaevxError, match="not the one of store"):
        score_data(query(sae=str(other)))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_command_and_its_filter(store: Path, tiny_files: Tiny, tmp_path: Path, suffix: str) -> None:
    """Kept as from the store of the same pairs, and loaded back with the rows' own fields."""
    import datasets

    out = tmp_path / f"scores{suffix}"
    done = saevx("score", tiny_files.data, "--store", store, "--out", out, "--device", "cpu")
    assert done.status == 0 and done.out.strip() == str(out), done.err
    for more in ([], ["--drop-flags", "few-features:0.01"], ["--drop-flags", "unsupported"]):
        command = ["--by", "pooled-cosine", "--keep", 40, *more]
        remaining = saevx("filter", out, *command)
        assert remaining.status == 0, remaining.err
        assert remaining.out == saevx("filter", store, *command).out
    ids = saevx("filter", out, "--by", "l0", "--keep", 25, "--format", "ids").out.split()
    assert len(ids) == 10
    file = tmp_path / "kept.jsonl"
    assert saevx("filter", out, "--by", "l0", "--keep", 25, "--out", file).status == 0
    table = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert table["id"][:] == ids
    lines = (tiny_files.data / "metadata.jsonl").read_text().splitlines()
    own = {row["id"]: row for row in map(json.loads, lines)}
    scores = {row["id"]: row["score_l0"] for row in rows_of(out)}
    for row in table:
        assert {name: row[name] for name in own[row["id"]]} == own[row["id"]]
        assert row["l0"] == pytest.approx(scores[row["id"]])
    assert min(table["l0"][:]) >= np.quantile(list(scores.values()), 0.75)


def test_filter_refuses_what_is_no_such_file(tmp_path: Path) -> None:
    for name, raw in (("a.jsonl", "{}\n"), ("b.jsonl", "no"), ("c.parquet", "no"), ("d.csv", "a,b")):
        (tmp_path / name).write_text(raw)
        done = saevx("filter", tmp_path / name, "--by", "l0")
        assert done.status == 1 and len(done.err.strip().splitlines()) == 1, done.err

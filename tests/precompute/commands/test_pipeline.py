"""`saevx precompute` as a person types it: whole stores, and what it refuses."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from backend.commands import Saevx
from precompute.cli import run
from precompute.errors import SaevxError
from precompute.options.precompute import LATER, PrecomputeOptions
from precompute.pipeline import precompute
from precompute.steps.registry import STEPS
from precompute.store.making.verify import verify
from precompute.store.reader import Store
from tests.helpers import tiny
from tests.helpers.commands import run_saevx
from tests.helpers.in_process import saevx, sums
from tests.helpers.tinies import Maker, Tiny


@pytest.fixture(scope="module")
def finished(tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "store"
    done = saevx(
        "precompute", tiny_files.data, "--model", tiny_files.model, "--sae", tiny_files.sae, "--out", out,
        "--nll", "--batch-tokens", 150, "--shard-samples", 8, "--device", "cpu",
    )  # fmt: skip
    assert done.status == 0, done.err
    return out


def test_steps_are_listed_in_the_order_in_which_they_run() -> None:
    assert tuple(STEPS) == LATER


def test_a_whole_store(finished: Path, tiny_files: Tiny) -> None:
    assert all(check.ok for check in verify(finished))
    assert sorted(path.name for path in finished.iterdir()) == [
        "cooccurrence", "events", "images", "index", "manifest.json", "map.bin", "run.json", "store.sqlite"
    ]  # fmt: skip
    assert not finished.with_name("store.part").exists()
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["model"]["layer"] == tiny.LAYER and manifest["model"]["template"] == "<s>USER: <image>\n{text}"
    assert str(tiny_files.model.parent) not in json.dumps(manifest), "no path of this machine"
    report = json.loads((finished / "run.json").read_text())
    assert report["model"] == str(tiny_files.model) and report["seconds"].keys() >= {"collect", "weigh", "label"}
    store = Store.open(finished)
    assert store.samples.get("pair-3")["text"]
    store.close()


def test_one_shard_in_another_process_gives_the_same_store(finished: Path, tiny_files: Tiny, tmp_path: Path) -> None:
    """The console command itself: the same bytes, and plain lines where nobody watches a terminal."""
    done = run_saevx(
        "precompute", tiny_files.data, "--model", tiny_files.model, "--sae", tiny_files.sae,
        "--out", tmp_path / "store", "--nll", "--batch-tokens", "150", "--shard-samples", "1000", "--device", "cpu",
    )  # fmt: skip
    assert done.stdout.strip() == str(tmp_path / "store")
    assert "collect: 40 of 40 samples" in done.stderr and "\r" not in done.stderr
    assert sums(tmp_path / "store") == sums(finished)


def test_a_finished_store_is_refused(finished: Path, options: Maker) -> None:
    before = sums(finished)
    for only in (None, "weigh"):
        with pytest.raises(SaevxError, match="a store never changes: choose another --out"):
            precompute(options(out=finished, only=only))
    assert sums(finished) == before


def test_other_options_do_not_go_on_with_an_unfinished_store(options: Maker) -> None:
    precompute(options(only="collect"))
    with pytest.raises(SaevxError, match="other data, model, SAE or options"):
        precompute(options(seed=5))
    with pytest.raises(SaevxError, match="other data, model, SAE or options"):
        precompute(options(ds=9, only="collect"))


def test_step_by_step_is_the_whole(options: Maker, tmp_path: Path) -> None:
    with pytest.raises(SaevxError, match="run --only collect first"):
        precompute(options(only="weigh"))
    steps = options(out=tmp_path / "a" / "store")
    for step in ("collect", "weigh", "score", "flag", "cooccur", "index", "sample-map", "families", "label"):
        assert precompute(steps.model_copy(update={"only": step})) == steps.part
    whole = precompute(options(out=tmp_path / "b" / "store"))
    assert sums(precompute(steps)) == sums(whole)


def test_dry_run_writes_nothing(options: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    made = options(dry_run=True)
    precompute(made)
    report = capsys.readouterr().out
    assert all(word in report for word in ("time", "memory", "disk", "40 samples"))
    assert not made.part.exists() and not made.out.exists()


def test_text_alone_data(options: Maker, tmp_path: Path) -> None:
    """A causal language model over captions: no image token anywhere, and a whole store."""
    path = tmp_path / "text.jsonl"
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(tiny.WORDS, 6)) for _ in range(24)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    model = tiny.make_llama(tmp_path / "llama")
    store = Store.open(precompute(options(data=str(path), model=str(model))))
    assert store.manifest["tokens"]["image"] == 0 and store.n_samples == 24
    assert store.manifest["model"]["family"] == "text-only"
    store.close()


def test_images_whose_captions_have_no_word(options: Maker, tmp_path: Path) -> None:
    data = tiny.make_data(tmp_path / "data", 6)
    rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    (data / "metadata.jsonl").write_text("".join(json.dumps({**row, "text": ""}) + "\n" for row in rows))
    store = Store.open(precompute(options(data=str(data))))
    assert store.manifest["tokens"]["text"] == 0 and store.n_samples == 6
    store.close()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": "/no/such/place"}, "no data at"),
        ({"model": "/no/such/place"}, "cannot be read"),
        ({"sae": "/no/such/place"}, "cannot be loaded|no folder"),
        ({"layer": 9}, "layers 0 to 3, not 9"),
        ({"geometry": "round"}, "No geometry"),
    ],
)
def test_wrong_input_is_one_sentence(options: Maker, changed: dict[str, object], message: str) -> None:
    made = options(**changed)
    with pytest.raises(SaevxError, match=message) as caught:
        precompute(made)
    assert "\n" not in str(caught.value)
    assert not made.out.exists()


def test_an_sae_of_another_width(options: Maker, tmp_path: Path) -> None:
    with pytest.raises(SaevxError, match="trained on another model"):
        precompute(options(sae=str(tiny.make_sae(tmp_path / "wide", d_in=48))))


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (["precompute"], 2),
        (["precompute", "x", "--model", "m", "--sae", "s", "--out", "o", "--batch-tokens", "many"], 2),
        (["precompute", "x", "--model", "m", "--sae", "s", "--out", "o", "--batch-tokens", "0"], 2),
        (["precompute", "x", "--model", "m", "--sae", "s", "--out", "o", "--only", "dance"], 2),
        (["precompute", "x", "--model", "m", "--sae", "s", "--out", "o", "--sinks", "some"], 2),
        (["precompute", "x", "--model", "m", "--sae", "s", "--out", "o", "--sinks", "-1"], 2),
        (["precompute", "x", "--model", "m", "--sae", "s", "--out", "o", "--colour"], 2),
        (["filter", "x", "--by", "l0", "--keep", "101"], 2),
        (["dance"], 2),
        (["precompute", "/no/such", "--model", "m", "--sae", "s", "--out", "o"], 1),
        (["verify", "/no/such"], 1),
        (["filter", "/no/such", "--by", "l0"], 1),
    ],
)
def test_exit_status_and_one_clear_line(args: list[str], status: int) -> None:
    done = saevx(*args)
    assert done.status == status, done.err
    assert "Traceback" not in done.err and "pydantic" not in done.err.lower()
    assert len(done.err.strip().splitlines()) == 1, done.err


def test_whole_paths_for_processes_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sae").mkdir()
    (tmp_path / "a.tar").touch()
    monkeypatch.chdir(tmp_path)
    options = PrecomputeOptions(
        data="*.tar", model="owner/name", sae="sae", out=Path("store"), image_folder=Path("pictures")
    )
    whole, at = options.absolute(), tmp_path.resolve()
    assert (whole.data, whole.model, whole.sae) == (str(at / "*.tar"), "owner/name", str(at / "sae"))
    assert (whole.out, whole.image_folder) == (at / "store", at / "pictures")


def test_help_tells_every_option() -> None:
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit) as ended:
        run(Saevx, ["precompute", "--help"])
    assert ended.value.code == 0
    report = " ".join(out.getvalue().split())
    for name in (
        "--batch-tokens",
        "--shard-samples",
        "--nll",
        "--sinks",
        "--delta",
        "--dry-run",
        "--only",
        "--dtype",
    ):
        assert name in report
    assert "10 % of each feature's 99.9th percentile" in report and "default: 4096" in report


def test_verify_and_filter(finished: Path, tmp_path: Path) -> None:
    assert saevx("verify", finished).status == 0
    ids = saevx("filter", finished, "--by", "l0", "--keep", 50, "--format", "ids").out.split()
    assert len(ids) == 20
    done = saevx("filter", finished, "--by", "l0", "--keep", 50, "--out", tmp_path / "kept.jsonl")
    assert done.status == 0
    lines = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ids and {line["kind"] for line in lines} <= {0, 1}

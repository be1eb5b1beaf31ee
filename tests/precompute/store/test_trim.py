"""`--events all|examples|none`, `--max-store-gb`: what is kept is what was asked, and the same as in the full store."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from precompute.errors import SaevxError
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import precompute
from precompute.store import schema
from precompute.store.events import Events, EventsNotStored
from precompute.store.making import sealing, trim, writer
from precompute.store.making.verify import verify
from precompute.store.reader import Store
from tests.helpers import tiny
from tests.helpers.in_process import sums
from tests.helpers.stores import edit, seal
from tests.helpers.tinies import Tiny
from tests.helpers.unfinished import Part

FULL = ("token_event", "event_feature", "event_value")


class Stores(NamedTuple):
    """The same run with each choice."""

    all: Path
    examples: Path
    none: Path


def made(tiny_files: Tiny, root: Path, **changed: Any) -> Path:
    options: dict[str, Any] = {
        "data": str(root / "data"), "model": str(tiny_files.model), "sae": str(root / "sae"), "out": root / "store",
        "name": "few", "ds": 10, "device": "cpu",
    }  # fmt: skip
    return precompute(PrecomputeOptions(**{**options, **changed}))


@pytest.fixture(scope="module")
def stores(tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Stores:
    """So few features and so many pairs, their pictures not tiny, that no page shows some of them."""
    root = tmp_path_factory.mktemp("kept")
    tiny.make_data(root / "data", 160)
    for i, path in enumerate(sorted((root / "data").glob("*.png"))):
        tiny.picture(i, (72 + 4 * (i % 3), 72)).save(path)
    tiny.make_sae(root / "sae", d_sae=2)
    choices = {"all": {}, "examples": {"events": "examples"}, "none": {"events": "none"}}  # the first by default
    return Stores(*(made(tiny_files, root, out=root / name, **choice) for name, choice in choices.items()))


def test_each_store_is_sound_and_says_what_it_keeps(stores: Stores) -> None:
    for choice, path in stores._asdict().items():
        assert all(check.ok for check in verify(path)), [str(check) for check in verify(path)]
        stated = json.loads((path / "manifest.json").read_text())["events"]
        assert stated["kept"] == choice
        assert (path / "events" / "kept.npy").exists() == (choice != "all")
        assert not (path / "plan.json").exists() and not list(path.glob(f"{trim.TRIMMED}*"))
    n = [json.loads((path / "manifest.json").read_text())["events"]["n"] for path in stores]
    assert n[0] == 160 and 0 < n[1] < 160 and n[2] == 0


def test_tables_do_not_depend_on_what_is_kept(stores: Stores) -> None:
    for path in (stores.examples, stores.none):
        for file in ("store.sqlite", *(f"events/{name}.npy" for name in trim.ARRAYS_OF_ALL_SAMPLES)):
            assert (path / file).read_bytes() == (stores.all / file).read_bytes(), file


def test_samples_that_pages_show_are_kept_and_answer_as_in_the_full_store(stores: Stores) -> None:
    full, trimmed, none = (Store.open(path) for path in stores)
    with full.engine.connect() as conn:
        on_pages = {row for (row,) in conn.execute(select(schema.examples.c.row).distinct())}
        on_pages |= {row for (row,) in conn.execute(select(schema.flag_reasons.c.row))}
    assert trimmed.events.kept_rows is not None and on_pages <= set(trimmed.events.kept_rows.tolist())
    for row in range(full.n_samples):
        sample_id, features = full.samples.sample_id(row), list(range(full.n_features))
        assert none.samples.get(sample_id) == trimmed.samples.get(sample_id) == full.samples.get(sample_id)
        assert none.samples.activations(sample_id, []) == full.samples.activations(sample_id, [])
        if trimmed.events.has(row):
            assert json.dumps(trimmed.samples.activations(sample_id, features)) == json.dumps(
                full.samples.activations(sample_id, features)
            )
            assert trimmed.samples.features_at(sample_id, position=3) == full.samples.features_at(sample_id, position=3)
        else:
            with pytest.raises(EventsNotStored, match="not kept"):
                trimmed.samples.activations(sample_id, features)
        assert not none.events.has(row)
    for feature in range(full.n_features):
        options = {"band": None, "limit": 200}
        assert trimmed.examples.of(feature, **options) == full.examples.of(feature, **options)
        bare = none.examples.of(feature, **options)
        for without, one in zip(bare, full.examples.of(feature, **options), strict=True):
            places = ("sample_id", "band", "rank", "activation", "position", "token", "patch")
            assert {k: without[k] for k in places} == {k: one[k] for k in places}
            assert without["grid"] is None
            for token, known in zip(without["tokens"], one["tokens"], strict=True):
                assert token["activation"] in (None, known["activation"])
    for store in (full, trimmed, none):
        store.close()


@settings(max_examples=30)
@given(data=st.data())
def test_trimming_keeps_exactly_what_is_asked(part: Part, data: st.DataObject) -> None:
    events = Events(part.path / "events", part.data.scale_log2)
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, part.data.n_samples - 1), max_size=40))), dtype=np.int64)
    trim.write(part.path, part.data.scale_log2, rows)
    fresh = Events(part.path / trim.TRIMMED, part.data.scale_log2)
    assert fresh.kept_rows is not None and fresh.kept_rows.tolist() == rows.tolist()
    for row in range(part.data.n_samples):
        assert fresh.has(row) == (row in rows)
        mine, theirs = (e.of(row) if fresh.has(row) else e.tokens(row) for e in (fresh, events))
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
    files = [part.path / trim.TRIMMED / f"{name}.npy" for name in (*FULL, "kept", "kept_token")]
    n_bytes = sum(file.stat().st_size - 128 for file in files)
    assert trim.event_bytes(events, rows) == n_bytes
    trim.forget(part.path)


def test_small_steps_give_the_same(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.array([0, 1, 2, 7, 50, 51, 199])

    def bytes_of() -> list[bytes]:
        trim.write(part.path, part.data.scale_log2, rows)
        return [path.read_bytes() for path in sorted((part.path / trim.TRIMMED).glob("*.npy"))]

    first = bytes_of()
    monkeypatch.setattr(trim, "BYTES_AT_ONCE", 256)
    assert bytes_of() == first
    trim.forget(part.path)


class Killed(BaseException):
    """Stands for the process's end: nothing catches it."""


PLACES: dict[str, tuple[object, str]] = {
    "while the tables are written": (writer, "fill"),
    "while arrays are trimmed": (trim, "new_array"),
    "before they are put in place": (trim, "publish"),
    "when the full ones are gone": (Path, "rename"),
    "before the checksums": (sealing, "checksums"),
}


def kill_at(place: str, tiny_files: Tiny, root: Path) -> None:
    at, name = PLACES[place]
    rename = Path.rename

    def die(*args: Any, **_: object) -> None:
        if name == "rename" and args[0].name != trim.TRIMMED:
            rename(*args)
        else:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(at, name, die)
        with pytest.raises(Killed):
            made(tiny_files, root, events="examples")
    assert not (root / "store").exists()


@pytest.fixture(scope="module")
def unfinished(stores: Stores, tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, SAE and a run that was killed at the first of the places."""
    root = tmp_path_factory.mktemp("unfinished")
    for name in ("data", "sae"):
        (root / name).symlink_to(stores.all.parent / name)
    kill_at(next(iter(PLACES)), tiny_files, root)
    return root


@pytest.mark.parametrize("place", PLACES)
def test_a_run_killed_at_its_end_goes_on(
    place: str, stores: Stores, tiny_files: Tiny, unfinished: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(unfinished, tmp_path / "root", symlinks=True)
    kill_at(place, tiny_files, root)
    if place in ("when the full ones are gone", "before the checksums"):
        with pytest.raises(SaevxError, match="nearly finished with other options"):
            made(tiny_files, root, events="none")
        with pytest.raises(SaevxError, match="without --only"):
            made(tiny_files, root, events="examples", only="weigh")
    assert sums(made(tiny_files, root, events="examples")) == sums(stores.examples)


def test_the_largest_that_fits_is_chosen() -> None:
    sizes = {"all": 3e9, "examples": 2e9, "none": 1e9}
    assert trim.choose(None, None, sizes) == trim.choose("all", None, sizes) == "all"
    assert trim.choose("none", None, sizes) == "none"
    assert [trim.choose(None, most, sizes) for most in (3, 2.5, 1.2)] == ["all", "examples", "none"]
    with pytest.raises(SaevxError, match=r"none this store needs 1 GB, more than --max-store-gb 0.9: raise .* to 1 or"):
        trim.choose(None, 0.9, sizes)
    with pytest.raises(SaevxError, match=r"--events all this store needs 3 GB.*: take --events examples or raise"):
        trim.choose("all", 2, sizes)


def test_the_size_said_is_the_size(stores: Stores) -> None:
    """What `choose` compares at the end, against the finished folders."""
    for path in stores:
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        arrays = sum((path / "events" / f"{name}.npy").stat().st_size for name in FULL)
        assert abs(trim.other_bytes(path) + arrays - size) < 0.05 * size


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        (edit("kept", lambda a: a[:-1]), "events"),
        (edit("kept", lambda a: a[::-1].copy()), "events"),
        (edit("kept_token", lambda a: a + 1), "offsets"),
        (edit("event_value", lambda a: a * 2), "arrays"),
        (lambda store: [(store / "events" / f"{n}.npy").unlink() for n in ("kept", "kept_token")], "events"),
    ],
)
def test_damage_to_a_trimmed_store_is_found(
    stores: Stores, damage: Callable[[Path], None], check: str, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(stores.examples, tmp_path / "store"))
    damage(copy)
    seal(copy)
    failed = {c.name: c.detail for c in verify(copy) if not c.ok}
    assert failed.get(check)


def test_counter_examples_do_not_depend_on_what_is_kept(stores: Stores) -> None:
    opened = [Store.open(path) for path in stores]
    for k in range(2):
        lists = [
            [(one["sample_id"], one["counter"], one["modality"]) for one in store.counterexamples.of(k, limit=100)]
            for store in opened
        ]
        assert lists[0] == lists[1] == lists[2]
    for store in opened:
        store.close()

"""A store is looked at when it is opened: one that is damaged, unfinished or of another version is refused."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from precompute.errors import SaevxError
from precompute.store import opening
from precompute.store import schema as s
from precompute.store.opening import Stamp, StoreUnreadable, check_files, read_manifest
from precompute.store.reader import Store
from tests.helpers.in_process import saevx
from tests.helpers.synthetic import write_store

Damage = Callable[[Path], Any]


@pytest.fixture
def copy(made_up: Store, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_up.path, tmp_path / "store"))


def write(name: str, content: str | bytes) -> Damage:
    return lambda store: (store / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(name: str, left: float) -> Damage:
    def apply(store: Path) -> None:
        content = (store / name).read_bytes()
        (store / name).write_bytes(content[: int(len(content) * left)])

    return apply


def edit(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def apply(store: Path) -> None:
        manifest = json.loads((store / "manifest.json").read_text())
        change(manifest)
        (store / "manifest.json").write_text(json.dumps(manifest))

    return apply


def without_sizes(damage: Damage) -> Damage:
    """In a store whose manifest does not tell the sizes, as older versions wrote it."""

    def apply(store: Path) -> None:
        edit(lambda m: m.pop("sizes"))(store)
        damage(store)

    return apply


def gone(name: str) -> Damage:
    return lambda store: shutil.rmtree(store / name) if (store / name).is_dir() else (store / name).unlink()


def sql(*statements: str) -> Damage:
    def apply(store: Path) -> None:
        with closing(sqlite3.connect(store / "store.sqlite")) as conn:
            for statement in statements:
                conn.execute(statement)
            conn.commit()

    return apply


def other_database(store: Path) -> None:
    (store / "store.sqlite").unlink()
    sql("CREATE TABLE features (id)")(store)


HALF = b"\x93NUMPY\1\0\5\0({'x\n"
"""A header of an array whose size is right, and whose text is not."""
DAMAGE: dict[str, tuple[Damage, str]] = {
    "manifest empty": (write("manifest.json", ""), "manifest.json is empty"),
    "manifest cut": (cut("manifest.json", 0.3), "manifest.json is cut off"),
    "manifest a list": (write("manifest.json", "[]"), "no JSON object"),
    "manifest a number": (write("manifest.json", "3"), "no JSON object"),
    "manifest an object": (write("manifest.json", "{}"), "does not say its schema"),
    "manifest not text": (write("manifest.json", b"\xff\xfe\x00"), "is not text"),
    "manifest too deep": (write("manifest.json", "[" * 100_000), "cut off or not JSON"),
    "manifest without content id": (edit(lambda m: m.pop("content_id")), "'content_id'"),
    "manifest without a layer": (edit(lambda m: m["model"].pop("layer")), "'model.layer'"),
    "manifest with a list for the model": (edit(lambda m: m.update(model=[])), "'model'"),
    "manifest with words for a number": (edit(lambda m: m["sae"].update(n_features="96")), "'sae.n_features'"),
    "manifest with true for a number": (edit(lambda m: m.update(scale_log2=True)), "'scale_log2'"),
    "manifest with a huge scale": (edit(lambda m: m.update(scale_log2=10**30)), "'scale_log2'"),
    "manifest of more features": (edit(lambda m: m["sae"].update(n_features=129)), "neighbours.npy is of another"),
    "manifest of fewer samples": (edit(lambda m: m["data"].update(n_samples=3)), "sample_token.npy is of another"),
    "manifest with too few sizes": (edit(lambda m: m["sizes"].pop()), "size of each of its files"),
    "manifest without the database": (without_sizes(edit(lambda m: m["files"].pop("store.sqlite"))), "not list"),
    "another schema without a number": (edit(lambda m: m.update(schema="2")), "does not say its schema"),
    "database empty": (write("store.sqlite", b""), "store.sqlite has 0 bytes"),
    "database cut": (cut("store.sqlite", 0.5), "store.sqlite has"),
    "database text": (without_sizes(write("store.sqlite", "no database")), "is cut off or no database"),
    "database empty, sizes unknown": (without_sizes(write("store.sqlite", b"")), "has no column"),
    "database cut at once, sizes unknown": (without_sizes(cut("store.sqlite", 0.002)), "is cut off or no"),
    "database of something else": (without_sizes(other_database), "has no column"),
    "a table lost": (without_sizes(sql("DROP TABLE scores")), "in a table 'scores'"),
    "full text lost": (without_sizes(sql("DROP TABLE sample_fts")), "'sample_fts'"),
    "no events": (gone("events"), "events/"),
    "no co-occurrence": (gone("cooccurrence"), "more files are missing"),
    "no index": (gone("index"), "index/"),
    "no map": (gone("map.bin"), "map.bin is missing"),
    "no images": (gone("images"), "images/"),
    "an image lost": (gone("images/0/7_0.webp"), "images/0/7_0.webp is missing"),
    "an image cut": (cut("images/0/7_0.webp", 0.5), "images/0/7_0.webp has"),
    "an array cut": (cut("events/event_value.npy", 0.9), "events/event_value.npy has"),
    "an array cut, sizes unknown": (without_sizes(cut("events/event_value.npy", 0.9)), "events/event_value.npy is"),
    "an array's header damaged": (without_sizes(write("events/token_id.npy", HALF)), "events/token_id.npy is"),
    "an array empty, sizes unknown": (without_sizes(write("events/token_id.npy", b"")), "events/token_id.npy is"),
    "an array that is text": (without_sizes(write("events/token_id.npy", "words")), "events/token_id.npy is"),
    "pairs cut, sizes unknown": (without_sizes(cut("cooccurrence/text-text.npy", 0.5)), "cooccurrence/text-text.npy"),
    "pairs' starts cut": (without_sizes(cut("cooccurrence/text-text_start.npy", 0.5)), "text-text_start.npy"),
    "neighbours cut, sizes unknown": (without_sizes(cut("index/neighbours.npy", 0.5)), "index/neighbours.npy"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_store_is_refused_in_one_sentence(copy: Path, what: str) -> None:
    damage, words = DAMAGE[what]
    damage(copy)
    with pytest.raises(SaevxError) as refused:
        Store.open(copy)
    message = str(refused.value)
    assert words in message and str(copy) in message and message.endswith(".") and "\n" not in message
    assert "run `saevx precompute` again" in message and message.count(". ") == 0


def test_an_index_that_is_none_is_told_where_it_is_asked_for(copy: Path) -> None:
    without_sizes(cut("index/decoder.faiss", 0.5))(copy)
    with pytest.raises(StoreUnreadable, match=r"index/decoder\.faiss is cut off"):
        Store.open(copy).search.index("decoder")


def test_pages_of_the_database_that_are_damaged_are_told_where_they_are_read(copy: Path) -> None:
    content = bytearray((copy / "store.sqlite").read_bytes())
    content[8192:] = b"\xff" * len(content[8192:])  # the first pages list the tables
    (copy / "store.sqlite").write_bytes(content)
    with pytest.raises(SaevxError, match=r"damaged|saevx verify"):
        Store.open(copy).samples.list()


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"created": 5, "model": 7}', '{"created": "soon"}', None])
def test_what_run_json_says_of_the_run_is_not_needed(copy: Path, content: str | None) -> None:
    (copy / "run.json").unlink()
    if content is not None:
        (copy / "run.json").write_text(content)
    edit(lambda m: m.pop("created"))(copy)
    assert Store.open(copy).summary["created"] is None


def test_other_versions_say_which_way(copy: Path) -> None:
    edit(lambda m: m.update(schema=s.SCHEMA_VERSION + 1))(copy)
    with pytest.raises(SaevxError, match=r"by a newer version .* install a newer saevx\.$"):
        Store.open(copy)
    edit(lambda m: m.update(schema=s.SCHEMA_VERSION - 1))(copy)
    with pytest.raises(SaevxError, match=r"by an older version .* run `saevx precompute` again\.$"):
        Store.open(copy)


def test_an_unfinished_store_is_told_from_a_damaged_one(copy: Path) -> None:
    part = copy.rename(copy.with_name("store.part"))
    edit(lambda m: [m.pop(name) for name in ("schema", "files", "sizes", "content_id")])(part)
    with pytest.raises(SaevxError, match="unfinished, so run `saevx precompute` again"):
        Store.open(part)


@pytest.mark.parametrize("path", ["nothing", "store/manifest.json", "a\0b", "x" * 300])
def test_what_is_no_store_is_refused(copy: Path, path: str) -> None:
    with pytest.raises(SaevxError, match=r"is not a store|cannot be read"):
        Store.open(copy.parent / path)


def test_of_many_images_some_are_looked_at(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All images would take too long; all other files are always looked at."""
    manifest = read_manifest(copy)
    images = [name for name in manifest["files"] if name.startswith(opening.IMAGES)]
    monkeypatch.setattr(opening, "CHECKED_IMAGES", 10)
    looked: list[str] = []
    from_file = Stamp.from_file
    monkeypatch.setattr(
        Stamp, "from_file", lambda path: looked.append(path.relative_to(copy).as_posix()) or from_file(path)
    )
    stamps = check_files(copy, manifest)
    seen = [name for name in looked if name in images]
    assert 10 <= len(seen) <= 12 and images[0] in seen and images[-1] in seen
    assert set(stamps) == set(manifest["files"]) - set(images) and set(stamps) <= set(looked)


def test_images_are_counted_and_not_listed_in_memory(copy: Path) -> None:
    manifest, held = read_manifest(copy), Store.open(copy).manifest
    images = [name for name in manifest["files"] if name.startswith("images/")]
    assert images and not any(name.startswith("images/") for name in held["files"])
    assert held["images"] == {"n": len(images), "bytes": sum((copy / name).stat().st_size for name in images)}
    assert held["sizes"] == [(copy / name).stat().st_size for name in held["files"]]
    without_sizes(lambda store: None)(copy)
    assert Store.open(copy).manifest["images"] == {"n": len(images), "bytes": None}


def test_a_store_that_names_files_outside_itself_does_not_show_them(copy: Path) -> None:
    for path in ("/etc/passwd", "images/../../secret", "manifest.json"):
        images = json.dumps([{"width": 1, "height": 1, "sha256": "", "path": path}])
        without = [] if "sizes" not in read_manifest(copy) else [without_sizes(lambda store: None)]
        for step in (*without, sql(f"UPDATE samples SET images = '{images}' WHERE row = 0")):
            step(copy)
        with pytest.raises(SaevxError, match="not among the images"):
            Store.open(copy).samples.image_path("s00000")


def test_an_open_store_never_mixes_with_the_one_that_takes_its_place(copy: Path, tmp_path: Path) -> None:
    """What is mapped stays as it was; whatever is opened later is refused."""
    before, store = Store.open(copy), Store.open(copy)
    before.search.index("decoder")
    write_store(tmp_path / "new", 200, seed=9)
    shutil.rmtree(copy)
    for there in (False, True):
        if there:
            (tmp_path / "new").rename(copy)
        store.close()  # so that no connection is left of before
        for ask in (store.samples.list, lambda: store.search.index("decoder"), lambda: store.file("map.bin")):
            with pytest.raises(StoreUnreadable, match="since the store was opened"):
                ask()
        assert store.events.of(3).z_e.tolist() == before.events.of(3).z_e.tolist()
        assert len(store.cooccurrence.pairs["text-image"]) and len(store.features.neighbours)
    assert Store.open(copy).manifest["content_id"] != store.manifest["content_id"]


@pytest.mark.parametrize("what", ["manifest empty", "manifest a list", "database empty", "no events", "database cut"])
def test_every_command_refuses_a_damaged_store_in_one_line(copy: Path, tmp_path: Path, what: str) -> None:
    DAMAGE[what][0](copy)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a dog"}\n')
    for command in (
        ("serve", copy, "--no-live", "--port", 0),
        ("filter", copy, "--by", "cosine"),
        ("score", rows, "--store", copy, "--out", tmp_path / "scores.jsonl"),
        ("patches", rows, "--store", copy, "--out", tmp_path / "patches.json"),
    ):
        result = saevx(*command)
        output = result.err + result.out
        assert result.status == 1 and output.count("\n") == 1 and "is damaged" in output, (command, output)
    result = saevx("verify", copy)
    assert result.status == 1 and ("FAIL" in result.out or "is damaged" in result.err)

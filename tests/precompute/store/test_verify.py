"""`saevx verify` says all is well of a sound store, and names what is wrong with a damaged one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.making import verify as verify_module
from precompute.store.making.verify import verify, verify_or_raise
from precompute.store.reader import Store
from tests.helpers.stores import bump, edit, seal, sql


@pytest.fixture
def copy(made_up: Store, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_up.path, tmp_path / "store"))


def test_a_sound_store(copy: Path) -> None:
    checks = verify(copy)
    assert all(check.ok and str(check).startswith("ok") for check in checks) and len(checks) == 12
    assert verify_or_raise(copy)


@pytest.mark.parametrize("at_once", [1, 100])
def test_a_sound_store_in_pieces(copy: Path, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = verify(copy)
    monkeypatch.setattr(verify_module, "CHUNK_EVENTS", at_once)
    assert verify(copy) == checks


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        (edit("event_value", bump(5, 50)), "arrays"),
        (edit("max_value", bump(5, 1)), "arrays"),
        (edit("event_feature", lambda a: a[::-1].copy()), "arrays"),
        (edit("sample_token", bump(3, 10_000)), "offsets"),
        (edit("token_event", lambda a: a[:-1]), "offsets"),
        (edit("token_modality", bump(0, 1)), "counts"),
        (sql("UPDATE examples SET value = value * 2 WHERE feature = 0 AND rank = 0"), "arrays"),
        (sql("UPDATE examples SET row = 100000 WHERE feature = 0 AND rank = 1"), "database"),
        (sql("UPDATE features SET n_text = n_text + 1 WHERE id = 2"), "arrays"),
        (sql("UPDATE features SET n_both = n_both + 1 WHERE id = 3"), "arrays"),
        (sql("UPDATE features SET verdict = 'unpaired' WHERE verdict = 'cross-modal'"), "evidence"),
        (sql("UPDATE features SET pair_p = 0.9 WHERE verdict = 'cross-modal'"), "evidence"),
        (sql("UPDATE features SET pair_lift = pair_lift_high + 1"), "evidence"),
        (sql("UPDATE features SET pair_lift = pair_lift * 0.99 WHERE n_both > 0"), "evidence"),
        (sql("UPDATE features SET pair_lift_low = pair_lift_low * 0.9 WHERE n_both > 0"), "evidence"),
        (sql("UPDATE features SET place = 'row 1', place_share = 0.2 WHERE id = 4"), "evidence"),
        (sql("DELETE FROM samples WHERE row = 9"), "counts"),
        (lambda store: (store / "images/0/4_0.webp").unlink(), "images"),
        (edit("text-image", lambda t: t[:, ::-1].copy(), "cooccurrence"), "pairs"),
        (edit("text-text", lambda t: np.where(np.arange(7)[:, None] == 4, 0, t), "cooccurrence"), "pairs"),
        (edit("neighbours", lambda a: a[1:], "index"), "indices"),
        (edit("mean_direction", lambda a: a[1:], "index"), "indices"),
        (sql("UPDATE families SET n_members = n_members + 1"), "families"),
        (sql("UPDATE features SET family = NULL WHERE family = id"), "families"),
        (
            lambda store: shutil.copy(store / "index/decoder.faiss", store / "index/sample_text.faiss"),
            "indices",
        ),
    ],
)
def test_damage_is_found_even_under_right_checksums(copy: Path, damage: Callable[[Path], None], check: str) -> None:
    damage(copy)
    assert {c.name for c in verify(copy) if not c.ok} >= {"files"}  # the checksum sees any change
    seal(copy)
    failed = {c.name: c.detail for c in verify(copy) if not c.ok}
    assert failed.get(check)
    with pytest.raises(SaevxError, match="is damaged"):
        verify_or_raise(copy)


TOP = "feature = 0 AND modality = 0 AND band = -1"
HIGH = "examples WHERE feature = 0 AND modality = 0"
PLACE = "row, position, value, n_active"


def swapped(_: Store) -> list[str]:
    return [f"UPDATE examples SET rank = {to} WHERE {TOP} AND rank = {rank}" for rank, to in ((3, 99), (5, 3), (99, 5))]


def weaker(store: Store) -> list[str]:
    """In the last place, another patch of the same sample that is active too."""
    for k in range(store.n_features):
        for one in store.examples.of(k, modality="image")[-1:]:
            tokens, z_t = store.events.feature(int(one["sample_id"][1:]), k)
            z_t = np.where((tokens.modality_t == s.IMAGE) & (z_t > 0), z_t, np.inf)
            if (position := int(z_t.argmin())) != one["position"]:
                bits = int(np.float16(z_t[position] / store.events.unit).view(np.uint16))
                where = f"feature = {k} AND modality = 1 AND band = -1 AND rank = {one['rank']}"
                return [f"UPDATE examples SET position = {position}, value = {bits} WHERE {where}"]
    raise AssertionError("no sample has two active patches")


def shown_twice(store: Store) -> list[str]:
    """A sample that was folded, in the place of one that was not and is about as strong."""
    for k in range(store.n_features):
        examples = store.examples.of(k, modality="text")
        z = [np.inf, *(one["activation"] for one in examples), 0.0]
        windows = [[token["text"] for token in one["tokens"]] for one in examples]
        for row in range(store.n_samples):
            tokens, z_t = store.events.feature(row, k)
            z_t = np.where(tokens.modality_t == s.TEXT, z_t, 0.0)
            text = [store.vocabulary.text(int(t)) for t in tokens.token_id_t[tokens.modality_t == s.TEXT]]
            at = next((i for i in range(len(examples)) if z[i] > z_t.max() > z[i + 2]), None)
            if text in windows and at is not None and windows[at] != text and z_t.any():
                bits = int(np.float16(z_t.max() / store.events.unit).view(np.uint16))
                new = (row, int(z_t.argmax()), bits, int((z_t > 0).sum()))
                where = f"feature = {k} AND modality = 0 AND band = -1 AND rank = {at}"
                return [f"UPDATE examples SET ({PLACE}) = {new} WHERE {where}"]
    raise AssertionError("no sample was folded")


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        ([f"UPDATE examples SET n_active = n_active + 1 WHERE {TOP} AND rank = 3"], "number of active tokens"),
        ([f"UPDATE examples SET n_same = n_same + 1 WHERE {TOP} AND rank = 3"], "miscounted"),
        ([f"UPDATE examples SET n_same = n_same - 1 WHERE {TOP} AND n_same > 0"], "miscounted"),
        ([f"DELETE FROM examples WHERE {TOP} AND rank = 3"], "ranks"),
        ([f"DELETE FROM examples WHERE {TOP} AND rank > 8"], "miscounted"),
        ([f"DELETE FROM examples WHERE {TOP}"], "no example"),
        (
            [
                f"UPDATE examples SET ({PLACE}) = (SELECT {PLACE} FROM examples WHERE {TOP} AND rank = 4) "
                f"WHERE {TOP} AND rank = 5"
            ],
            "stands twice",
        ),
        (swapped, "do not fall"),
        (weaker, "not its sample's strongest"),
        (shown_twice, "show the same"),
        (
            [
                f"UPDATE examples SET band = 3, rank = (SELECT count(*) FROM {HIGH} AND band = 3) WHERE feature = 0 "
                f"AND modality = 0 AND band = 0 AND rank = (SELECT max(rank) FROM {HIGH} AND band = 0)"
            ],
            "another band",
        ),
    ],
)
def test_examples_that_are_not_what_they_say(
    copy: Path, statements: list[str] | Callable[[Store], list[str]], reason: str
) -> None:
    store = Store.open(copy)
    queries = statements if isinstance(statements, list) else statements(store)
    store.close()
    for statement in queries:
        sql(statement)(copy)
    seal(copy)
    failed = {c.name: c.detail for c in verify(copy) if not c.ok}
    assert failed.keys() == {"arrays"} and reason in failed["arrays"], failed


def test_an_edited_manifest(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["model"]["layer"] = 9
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert [c.name for c in verify(copy) if not c.ok] == ["files"]


def test_a_stray_file(copy: Path) -> None:
    (copy / "events" / "extra.npy").touch()
    assert "not listed" in next(c.detail for c in verify(copy) if not c.ok)

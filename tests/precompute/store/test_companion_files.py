"""What lies next to a store has the store's own name, however its folder is named."""

from pathlib import Path

import pytest

from precompute.store.companion_files import companion_path


def test_the_file_lies_beside_the_folder_however_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "store" / "events"
    inside.mkdir(parents=True)
    right = tmp_path / "store.controls.json"
    monkeypatch.chdir(inside)
    for store in (tmp_path / "store", Path(".."), Path("../../store"), Path("../events/..")):
        assert companion_path(store, "controls") == right, store
    (tmp_path / "newest").symlink_to(tmp_path / "store")
    assert companion_path(tmp_path / "newest", "controls") == tmp_path / "newest.controls.json"

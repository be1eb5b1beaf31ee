"""Files are written whole or not at all, into space that is there."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from precompute.errors import PlaceError, SaevxError
from precompute.utils.files import atomic_folder, atomic_write, check_file, new_array
from precompute.utils.ownership import exclusive, exclusive_file
from tests.helpers.machine import environment, small_disk

# ---- whole files


def test_a_file_appears_whole_or_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(path, "w") as file:
        file.write("half")
        file.flush()
        assert path.read_text() == "old"
        raise ZeroDivisionError
    assert path.read_text() == "old" and [one.name for one in tmp_path.iterdir()] == ["out.json"]
    with atomic_write(path, "w") as file:
        file.write("né\n")
    assert path.read_bytes() == "né\n".encode() and len(list(tmp_path.iterdir())) == 1
    with atomic_write(path) as file:
        file.write(b"\x00")
    assert path.read_bytes() == b"\x00"


def test_a_link_is_followed_and_a_device_is_written_to(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    with atomic_write(link, "w") as file:
        file.write("x")
    assert link.is_symlink() and target.read_text() == "x"
    device = Path(os.devnull)
    before = device.stat()
    with exclusive(device), atomic_write(device, "w") as file:
        file.write("x")
    assert os.path.samestat(device.stat(), before) and device.stat().st_mode == before.st_mode


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SaevxError, match="is a folder, where a file is to be written"):
        check_file(tmp_path)
    check_file(tmp_path / "new")
    with pytest.raises(SaevxError, match="too long"):
        check_file(tmp_path / ("n" * 300))


def test_a_folder_in_the_place_of_a_result_is_named_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(SaevxError, match="is a folder, where a file is to be written"), exclusive_file(tmp_path / "."):
        pytest.fail("the work has begun")


def test_a_link_that_leads_nowhere_is_looked_at_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "out.json")
    with pytest.raises(SaevxError, match=f"is a link to {tmp_path}/nowhere/out.json, whose folder does not exist"):
        check_file(tmp_path / "link")
    (tmp_path / "nowhere").mkdir()
    check_file(tmp_path / "link")


def test_a_folder_in_the_making_is_in_nobodys_way(tmp_path: Path) -> None:
    """FOLDER.part may be the unfinished store of another command."""
    (tmp_path / "site.part").mkdir()
    (tmp_path / "site.part" / "plan.json").write_text("mine")
    for content in ("old", "new"):
        with atomic_folder(tmp_path / "site") as part:
            (part / "index.html").write_text(content)
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "site"):
        raise ZeroDivisionError
    assert (tmp_path / "site" / "index.html").read_text() == "new"
    assert (tmp_path / "site.part" / "plan.json").read_text() == "mine" and len(list(tmp_path.iterdir())) == 2


# ---- room


@pytest.mark.parametrize("shape", [(0,), (5,), (7, 3), (100_000,)])
@pytest.mark.parametrize("kind", [np.uint8, np.float16, np.int64])
def test_a_mapped_array_has_numpys_bytes_and_no_holes(tmp_path: Path, shape: tuple[int, ...], kind: type) -> None:
    np.lib.format.open_memmap(tmp_path / "numpy.npy", "w+", np.dtype(kind), shape).flush()
    array = new_array(tmp_path / "ours.npy", kind, shape)
    assert array.shape == shape and array.dtype == kind and not array.any()
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    result = (tmp_path / "ours.npy").stat()
    assert result.st_blocks * 512 >= result.st_size
    array[...] = 1
    array.flush()
    assert bool((np.load(tmp_path / "ours.npy") == 1).all())


def test_zeros_are_written_where_the_system_reserves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    test_a_mapped_array_has_numpys_bytes_and_no_holes(tmp_path, (1_500_001,), np.uint8)


def test_too_little_room_is_told_before_anything_is_mapped(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as resize:
        disk = resize("1m")
        with pytest.raises(PlaceError, match=r"No space is left in .*disk: 2.0 MB are needed and 1.0 MB are free"):
            new_array(disk / "large.npy", np.uint8, (2_000_000,))
        assert not list(disk.iterdir()), "what was reserved is given back"
        new_array(disk / "small.npy", np.uint8, (900_000,))[...] = 1


def test_the_limit_on_the_size_of_files_is_told(tmp_path: Path) -> None:
    code = "import sys, numpy as np\nfrom pathlib import Path\nfrom precompute.utils.files import new_array\n"
    code += "new_array(Path(sys.argv[1]), np.uint8, (200_000,))"
    command = ["bash", "-c", 'ulimit -f 100; exec "$@"', "bash", sys.executable, "-c", code, str(tmp_path / "a.npy")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert "PlaceError: A file as large as " in done.stderr and "ulimit -f" in done.stderr
    assert not list(tmp_path.iterdir())

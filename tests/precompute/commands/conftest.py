import pytest

from tests.helpers.every_command import World, pass_of
from tests.helpers.in_process import saevx
from tests.helpers.tinies import Tiny


@pytest.fixture(scope="session")
def world(tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    done = saevx(*pass_of(tiny_files), "--out", root / "store")
    assert done.status == 0, done.err
    return World(tiny_files, root / "store", tiny_files.data)

"""A synthetic store and its unfinished part, built once for all tests of the steps."""

import pytest

from precompute.store.making.unfinished import Collected
from precompute.store.reader import Store
from tests.helpers.shared import made_once
from tests.helpers.synthetic import run_steps, write_part, write_store
from tests.helpers.tinies import mllm, options, saev, tiny_files, whole  # noqa: F401 (fixtures)
from tests.helpers.unfinished import Part


@pytest.fixture(scope="session")
def part(tmp_path_factory: pytest.TempPathFactory) -> Part:
    path = tmp_path_factory.mktemp("synthetic") / "store.part"
    manifest, given = write_part(path, n=200, seed=5)
    manifest = run_steps(path, manifest, given)
    return Part(path, manifest, given, Collected(path, manifest))


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same, finished and opened."""
    root = made_once(tmp_path_factory, "made-up", lambda root: write_store(root / "store", n=200, seed=5))
    return Store.open(root / "store")

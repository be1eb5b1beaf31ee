"""Folders that are dear to make: made once a run, by the first worker that needs them, and read by all workers."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from precompute.utils.ownership import exclusive


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The run's folder NAME, which `make` fills where no worker has. Tests must not change what is in it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # each worker has a folder of its own in that of the run
    folder, mark_file = base / "shared" / name, base / "shared" / f"{name}.made"
    with exclusive(base / "shared" / f"{name}.making", wait=True):
        if not mark_file.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed over it
            folder.mkdir(parents=True)
            make(folder)
            mark_file.touch()
    return folder

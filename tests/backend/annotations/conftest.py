"""Databases of annotations: SQLite files, and a real PostgreSQL."""

from collections.abc import Callable
from pathlib import Path

import pytest

from backend.annotations.database import Database
from tests.helpers.postgres import new_database

Open = Callable[[], Database]


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: of SQLite, or of PostgreSQL with `indirect`."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite:///{tmp_path / 'notes.sqlite'}"
    return new_database(request.getfixturevalue("postgres_url"))

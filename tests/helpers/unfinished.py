"""The unfinished store that tests of the steps read; the fixture `part` makes it."""

from pathlib import Path
from typing import Any, NamedTuple

from precompute.store.making.unfinished import Collected


class Part(NamedTuple):
    """STORE.part with all steps run but not finished."""

    path: Path
    manifest: dict[str, Any]
    options: dict[str, Any]
    data: Collected

"""The tests. What they share is in tests/helpers."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`from tests import tiny, families`, as programs outside the project import them."""
    from tests.helpers import families, tiny

    try:
        return {"families": families, "tiny": tiny}[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None

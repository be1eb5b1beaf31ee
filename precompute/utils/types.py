"""Types that many modules name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
"""A NumPy array. Docstrings say dtype and shape; a name ends in its axes' letters, such as `mean_f`, `score_sf`."""
Item = dict[str, Any]
"""A JSON object: one thing of a list, a page or a manifest."""
Items = list[Item]


def check_keywords(options: Mapping[str, Any], known: type) -> None:
    """Raises TypeError for an option that the TypedDict `known` does not have, as Python does for a parameter."""
    if unknown := sorted(set(options) - set(known.__annotations__)):
        raise TypeError(f"there is no option {unknown[0]!r}: use {', '.join(known.__annotations__)}")

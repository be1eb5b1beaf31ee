"""Types that many modules name."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
"""A NumPy array. Docstrings say dtype and shape; a name ends in its axes' letters, such as `mean_f`, `score_sf`."""

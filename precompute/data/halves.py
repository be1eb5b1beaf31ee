"""Samples divided in two by their ids: names are chosen on one half and scored on the other."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from precompute.data.batches import smallest_hashes
from precompute.utils.types import Array

MAX_SAMPLES = 20_000


class Halves(NamedTuple):
    """Samples by what they are for, each int64, rising."""

    choosing: Array
    """Rows on which names are chosen."""
    scoring: Array
    """Rows on which they are scored, and which give no evidence."""


def halves(sample_ids: Sequence[str]) -> Halves:
    """At most `MAX_SAMPLES` samples, divided by a hash of their ids."""
    rows = np.sort(np.array(smallest_hashes(sample_ids, MAX_SAMPLES), np.int64))
    is_second = [hashlib.sha256(f"name {sample_ids[row]}".encode()).digest()[0] % 2 == 1 for row in rows.tolist()]
    in_second = np.array(is_second, bool)
    return Halves(rows[~in_second], rows[in_second])

"""Flags together, and what a filter keeps."""

from __future__ import annotations

from backend.schemas.common import Model


class FlagOverlap(Model):
    """How many samples have both of two flags."""

    flags: list[str]
    """NAME, or NAME:THRESHOLD where the request sets another threshold than the store's."""
    counts: list[list[int]]
    """By flag and flag, in the order of `flags`; on the diagonal the samples with the one."""
    n_flagged: int
    """Samples with any flag."""


class FilterPreview(Model):
    """What `GET /filter` would stream."""

    total: int
    """Samples of the store."""
    matching: int
    """Those that the flags leave."""
    n_kept: int
    """Those that are kept of them."""
    cut: float | None
    """Smallest score among the kept samples; null without a score."""
    file: str
    """Name of the file, without its ending."""
    ids: list[str]
    """The first kept samples, in the order of the data."""

"""Flags together, what a filter keeps, and rows of the data that are not in the store."""

from typing import TYPE_CHECKING, Literal, TypeAlias

from backend.schemas.common import Model, Page
from precompute.data.rejections import KINDS

if TYPE_CHECKING:
    ReasonKind: TypeAlias = str
else:
    ReasonKind = Literal[*(kind.name for kind in KINDS)]


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
    filters: dict[str, str | float | list[str]]
    """What was asked for, as the address names it: the same in an address gives the same samples."""
    ids: list[str]
    """The first kept samples, in the order of the data."""


class RejectedRow(Model):
    """A row of the data that could not be used."""

    row: int
    """Its number in the data, counted from 0 over all rows."""
    id: str | None
    """Its own id; null if none could be read."""
    reason: str
    kind: ReasonKind


class ReasonCount(Model):
    """Number of rows rejected for one kind of reason."""

    kind: ReasonKind
    count: int
    sentence: str
    """The number in words, such as `12 repeat the id of an earlier row`."""
    advice: str
    """What to do about it; may be empty."""


class RejectedPage(Page[RejectedRow]):
    """One page of the rejected rows, and the counts of all rejected rows by kind of reason."""

    model_config = Model.model_config
    kinds: list[ReasonCount]
    """The most frequent first; not affected by the filter."""

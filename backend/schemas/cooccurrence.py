"""Families that share samples as a matrix, the graph around one feature, and samples of a pair."""

from backend.schemas.common import Modality, Model
from backend.schemas.features import FeatureRef, Kind, Measures


class Link(Measures):
    """Two features by number. For `text-image`, `a` is the one on text."""

    a: int
    b: int


class MatrixCell(Link):
    """The strongest pair of two families."""

    row: int
    """Place in `rows`."""
    column: int
    """Place in `columns`."""
    n_alike: int
    """Further pairs of the two families."""


class FamilyRef(FeatureRef):
    """A family, by the feature of its strongest pair."""

    family: int
    """Number of its strongest feature."""


class PairMatrix(Model):
    """Families × families, in an order in which families with the same partners are neighbours."""

    kind: Kind
    rows: list[FamilyRef]
    columns: list[FamilyRef]
    cells: list[MatrixCell]


class GraphPartner(FamilyRef, Link):
    """A feature that shares samples with the one in the middle."""

    kind: Kind
    modality: Modality
    """Side on which the partner fires."""


class GraphLink(Link):
    """Two partners that share samples."""

    kind: Kind


class PairGraph(Model):
    """The graph around one feature."""

    feature: FamilyRef
    partners: list[GraphPartner]
    links: list[GraphLink]


class StoredPair(Measures):
    """What the list says of a pair."""

    n_a: int
    n_b: int


class PairSample(Model):
    """A sample, with the largest activation of each of the two as a share of its p99.9; 0 where it is off, null
    where the store cannot tell."""

    sample_id: str
    share_a: float | None
    share_b: float | None


class PairSamples(Model):
    """Samples in which both fire, only `a`, or only `b`, each on its side."""

    kind: Kind
    a: FeatureRef
    b: FeatureRef
    pair: StoredPair | None
    """Null where the store does not list the pair."""
    complete: bool
    """Whether all samples were looked at; in a large store only those that are examples of `a` or `b`."""
    exact: bool
    """Whether all activations were looked at; else only the 256 strongest features of each side of a sample."""
    n_both: int
    n_only_a: int
    n_only_b: int
    both: list[PairSample]
    only_a: list[PairSample]
    only_b: list[PairSample]

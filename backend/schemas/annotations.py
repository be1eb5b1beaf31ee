"""What people write: about features and samples, lists of them, saved filters, and marks of flagged pairs."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from backend.schemas.common import Body, FlagName, Model, Problem

MAX_MEMBERS = 5000
Kind = Literal["feature", "sample", "list", "filter", "mark"]


def _storable(text: str) -> str:
    return text.replace("\0", "").strip()


def _tag(text: str) -> str:
    tag = " ".join(_storable(text).split())
    if not tag or "," in tag:
        raise ValueError("a tag has at least one letter, and no comma")
    return tag


def _once(tags: list[str]) -> list[str]:
    first: dict[str, str] = {}
    for tag in tags:
        first.setdefault(tag.casefold(), tag)
    return list(first.values())


Text = AfterValidator(_storable)
Title = Annotated[str, Field(max_length=200), Text]
LongText = Annotated[str, Field(max_length=20_000), Text]
Tag = Annotated[str, Field(max_length=60), AfterValidator(_tag)]
Tags = Annotated[list[Tag], Field(max_length=50), AfterValidator(_once)]
Author = Annotated[str, Field(max_length=80), Text]
Features = Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(max_length=MAX_MEMBERS)]
Samples = Annotated[list[Annotated[str, Field(min_length=1, max_length=20_000)]], Field(max_length=MAX_MEMBERS)]
NAME_PATTERN = "[a-z0-9][a-z0-9-]{0,59}"
"""Of the name of a list or filter."""
FilterPage = Literal["/features", "/samples", "/quality"]
"""Pages whose filters can be saved."""


class NoteBody(Model):
    """What a person wrote about a feature or a sample."""

    label: Title = ""
    """A name of their own, shown before the automatic one."""
    note: LongText = ""
    tags: Tags = Field(default_factory=list)
    """Without commas; one that differs only in case is the same."""
    reviewed: bool = False


class TestPair(Model):
    """A pair on which the features of a list are looked at."""

    __test__ = False  # no test of pytest's
    sample_id: Annotated[str, Field(max_length=20_000)] | None = None
    text: Annotated[str, Field(max_length=4000), Text] | None = None


class ListBody(Model):
    """A list of features and samples."""

    title: Title = ""
    note: LongText = ""
    features: Features = Field(default_factory=list)
    samples: Samples = Field(default_factory=list)
    pair: TestPair | None = None


class FilterBody(Model):
    """The filters and the order of a list, under a name."""

    title: Annotated[Title, Field(min_length=1)]
    page: FilterPage
    query: Annotated[str, Field(max_length=4000)] = ""
    """As in the address of the page, without `?`."""


class MarkBody(Model):
    """Whether a flag is right about a pair."""

    right: bool


class MarkedPair(MarkBody):
    """A mark with what it is about."""

    flag: FlagName
    sample_id: str


BODIES: dict[str, type[Model]] = {
    "feature": NoteBody, "sample": NoteBody, "list": ListBody, "filter": FilterBody, "mark": MarkedPair,
}  # fmt: skip
"""What each kind of thing holds."""


class Signed(Body):
    """Who writes."""

    author: Author | None = None
    """Name of the writer; without it the one in the cookie `saevx_author`."""


class Change(Signed):
    """A change: fields that are left out stay as they are."""

    restore: Annotated[int, Field(ge=0)] | None = None
    """Take all fields from this version of the history instead; 0 deletes."""


class NoteChange(NoteBody, Change):
    """What to write about a feature or a sample."""

    add_tags: Tags = Field(default_factory=list)
    """Needs no `If-Match`, as it overwrites nothing."""
    remove_tags: Tags = Field(default_factory=list)


class ListChange(ListBody, Change):
    """What to write into a list."""

    add_features: Features = Field(default_factory=list)
    """These four need no `If-Match`."""
    remove_features: Features = Field(default_factory=list)
    add_samples: Samples = Field(default_factory=list)
    remove_samples: Samples = Field(default_factory=list)


class FilterChange(FilterBody, Signed):
    """A saved filter."""


class MarkChange(MarkBody, Signed):
    """Whether a flag is right about a pair."""


class Version(Model):
    """Who wrote this version, and when."""

    version: int
    """Its number, which `If-Match` takes; 0 where nothing was ever written."""
    author: str
    at: str
    """Time in UTC; empty where nothing was ever written."""
    deleted: bool = False
    """Whether it is deleted, or was never written."""


class Note(NoteBody, Version):
    """What holds of a feature or a sample."""


class SavedList(ListBody, Version):
    """A list as it is now."""

    name: str
    """Last part of its address."""


class SavedFilter(FilterBody, Version):
    """A saved filter."""

    name: str


class Annotation(Version):
    """One version of anything that was written."""

    kind: Kind
    key: str
    """Number of the feature, id of the sample, name of the list or filter; of a mark `FLAG:SAMPLE`."""
    body: dict[str, Any] | None = None
    """Its fields, as the endpoint of the kind has them; null where it is deleted."""


class TagCount(Model):
    """How often a tag is used."""

    tag: str
    n_features: int
    n_samples: int


class Mark(MarkBody):
    """A pair that was marked."""

    sample_id: str
    score: float | None = None
    """Of the flag."""
    author: str
    at: str


class Precision(Model):
    """Of the marked pairs above a threshold, the share about which the flag is right."""

    threshold: float
    n: int
    """Marked pairs above the threshold."""
    n_right: int
    value: float | None = None
    low: float | None = None
    """Wilson's 95 % interval."""
    high: float | None = None


class FlagMarks(Model):
    """The marks of a flag, and what they say about its threshold."""

    flag: FlagName
    items: list[Mark]
    precision: Precision
    suggestion: Precision | None = None
    """The lowest threshold above which at least `target` of the marked pairs are right; null without one, or with fewer
    than ten marks."""
    target: float


class ConflictProblem(Problem):
    """Somebody changed it since it was read: nothing was written."""

    current: Annotation
    """What holds now; send its `version` as `If-Match` to overwrite it."""
    yours: dict[str, Any] | None
    """What would have been written; null for a deletion."""


class Exported(Model):
    """A file of annotations."""

    format: Literal["saevx-annotations"] = "saevx-annotations"
    version: Literal[1] = 1
    content_id: Annotated[str, Field(max_length=64)]
    """Of the store that they are about."""
    store: str = ""
    items: list[Annotation]
    directions: dict[int, str] = Field(default_factory=dict)
    """Sketch of each feature's decoder direction in base64, by which another store finds it."""


class Imported(Model):
    """What an import did."""

    written: int
    skipped: int
    """Things of which this store has something else."""
    lost: list[str] = Field(default_factory=list)
    """What has no counterpart in this store."""
    sentence: str

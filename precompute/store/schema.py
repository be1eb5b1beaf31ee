"""Tables of `store.sqlite`, and the names that the whole project shares. The format is described in
docs/store.md.

Activations in these tables are real SAE units (z); only `events/*.npy` and `examples.value` hold float16 stored units.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import JSON, Column, Float, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text, text
from sqlalchemy.types import TypeEngine

SCHEMA_VERSION = 4
LATER_TABLES = frozenset(("top_words",))
"""Tables that the first stores of this schema lack."""

TEXT, IMAGE, SPECIAL, SINK = 0, 1, 2, 3
MODALITIES = ("text", "image")  # axis order everywhere
TOKEN_KINDS = ("text", "image", "special", "sink")

SHOWN, CONTEXT_TOKENS = 20, 12
"""Listed examples of a feature and modality; text tokens of an example on either side of the strongest one."""
TOP = 40
"""Strongest samples that the pass collects of a feature and modality: twice `SHOWN`, as some are folded."""
N_BANDS, BAND = 4, 8
"""Octaves of activation below the maximum, the last open below; samples drawn from each."""
PLACE_SIDE = 7
"""Places of an image token: cells of a grid of so many rows and columns, laid over each view."""
KEPT_MAXIMA = 256
"""Stored maxima of a sample and modality: the features with the largest relative to their p99.9."""

VERDICTS = (
    "cross-modal", "in-context", "weakly-paired", "unpaired", "mostly-text", "mostly-image", "rare", "text-only",
    "image-only", "dead",
)  # fmt: skip
TESTED_VERDICTS = VERDICTS[:4]
"""Those that rest on a test of the pairs."""
VERDICT_ALIASES = {
    "unaligned": ("in-context", "weakly-paired", "unpaired"),
    "too-rare": ("mostly-text", "mostly-image", "rare"),
}
"""Verdicts of older versions, and what filters take them for."""
GOOD_NAME = 0.6
"""`label_score` below which pages show a feature's description in place of its name."""
POSSIBLE_NAME = 0.55
"""`label_score` from which pages show a failed name as a guess beside the description; .5 is chance."""
HAS_FEATURE, LACKS_FEATURE = 0.25, 0.1
"""Of p99.9: for its name a sample has a feature above the first and lacks it up to the second."""
COOCCURRENCE_KINDS = ("text-image", "text-text", "image-image")
NEIGHBOUR_SPACES = ("decoder", "profile")

SCORES = {
    "cosine": "Sum of ω over the features that any token of the sample activates (Algorithm 1)",
    "cosine-weighted": "Mean ω of the 32 strongest features, weighted by largest activation (the figure)",
    "cosine-cooccurring": "Sum of ω over the features active on text and on the image (released code)",
    "cosine-mean": "Mean ω over the features that any token activates",
    "pooled-cosine": "Cosine of the image's and the text's feature vectors (maxima of z)",
    "supported-share": "Weighted share of the text's features that the image has too",
    "caption-nll": "Minus the caption's mean cross-entropy given the image (whole model, no SAE)",
    "image-gain": "How much likelier the image makes the caption: caption-nll less that without the image",
    "l0": "Mean number of active features per token",
    "cooccurring-l0": "Number of features active in both modalities",
    "random": "Seeded control",
}

SELECTIONS = {
    "facility-location": "The set that stands best for all: each sample is near a kept one, near-duplicates last",
}
"""Ways to keep samples that look at the whole set; no score of one sample."""

# name → (title, source); all flag scores are higher = worse, and a sample is flagged above the threshold.
FLAGS = {
    "mismatch": ("Caption does not fit", "model"),
    "unsupported": ("Word without image", "model"),
    "near-duplicate": ("Near-duplicate", "model"),
    "blank": ("Blank image", "pixels"),
    "dark": ("Dark image", "pixels"),
    "blurred": ("Blurred image", "pixels"),
    "tiny": ("Tiny image", "pixels"),
    "empty-text": ("Empty text", "text"),
    "repeated-text": ("Repeated text", "text"),
    "reconstruction": ("Reconstruction outlier", "model"),
    "few-features": ("Few features", "model"),
}

OF_IMAGES = frozenset((
    "cosine", "cosine-weighted", "cosine-cooccurring", "cosine-mean", "pooled-cosine", "supported-share", "caption-nll",
    "image-gain", "cooccurring-l0", "mismatch", "unsupported", "near-duplicate", "blank", "dark", "blurred", "tiny",
))  # fmt: skip
"""Scores and flags that take an image: where a store has none, none of its samples has them."""

OMEGA_FIELDS = (
    "omega", "omega_baseline", "omega_centred", "omega_without_self", "lift", "lift_low", "lift_high",
    "lift_without_self", "p_value",
)  # fmt: skip
PAIR_FIELDS = (
    "pair_lift", "pair_lift_low", "pair_lift_high", "pair_p", "pair_lift_alone", "pair_p_alone", "n_both", "agreement",
    "agreement_low", "agreement_high",
)  # fmt: skip
"""Evidence that a feature fires on both sides of the same pair."""
DELTA_SHARE = 0.1
"""δ, as a share of p99.9."""
FALSE_DISCOVERY = 0.05
"""Expected share of chance among the features whose pair count passes (Benjamini and Hochberg, 1995)."""
TIED = 0.7
"""Share of a feature's image activation that ties it to a place."""
PLACES = ("patch", "row", "column")
"""Kinds of `features.place`."""


def score_column(name: str) -> str:
    return "score_" + name.replace("-", "_")


def flag_column(name: str) -> str:
    return "flag_" + name.replace("-", "_")


def _required_columns(kind: type[TypeEngine[Any]], *names: str) -> list[Column[Any]]:
    return [Column(name, kind, nullable=False) for name in names]


def _optional(kind: type[TypeEngine[Any]], *names: str) -> list[Column[Any]]:
    return [Column(name, kind) for name in names]


metadata = MetaData()

features = Table(
    "features",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("label", Text),
    Column("label_score", Float),
    *_required_columns(Text, "verdict"),
    *_required_columns(Integer, "n_text", "n_image", "samples_text", "samples_image", "n_samples"),
    *_required_columns(Float, "density_text", "density_image", "max_density"),
    *_required_columns(Float, "max_text", "max_image", "max_activation", "p999"),
    *_optional(Float, *OMEGA_FIELDS, "omega_all_pairs", "modality_share", "same_sample_rate"),
    *(Column(name, Integer if name == "n_both" else Float) for name in PAIR_FIELDS),
    Column("place", Text),  # "patch R,C", "row R" or "column C", from 0; null where it is tied to none
    Column("place_share", Float),
    Column("family", Integer, ForeignKey("families.id")),
    Column("namesake", Integer),  # of the features whose names begin with the same word, the one with most evidence
    Column("mean_cosine", Float),
    Column("description", Text),
    Column("evidence", Float),
)
FEATURE_SORTS = (
    "id", "label", "label_score", "density_text", "density_image", "max_activation", "p999", *OMEGA_FIELDS,
    "modality_share", "same_sample_rate", "n_samples", *PAIR_FIELDS, "place_share", "mean_cosine", "evidence",
)  # fmt: skip
for _name in ("verdict", "place", "family"):
    Index(f"features_{_name}", features.c[_name])
for _name in (*FEATURE_SORTS[1:], "max_density"):
    Index(f"features_{_name}", features.c[_name], features.c.id)

# What only a feature's own page shows, apart, so that lists and filters read short rows.
feature_details = Table(
    "feature_details",
    metadata,
    Column("id", Integer, ForeignKey("features.id"), primary_key=True),
    Column("hist", LargeBinary, nullable=False),
    *_optional(JSON, "logits", "place_map"),
)

# The word of each side, apart from the long rows of `feature_details`, as every list of features shows it.
top_words = Table(
    "top_words",
    metadata,
    Column("id", Integer, ForeignKey("features.id"), primary_key=True),
    *_optional(JSON, "text", "image"),
)

# Features that say nearly the same; a family's id is that of its strongest member.
families = Table(
    "families",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text),
    Column("n_members", Integer, nullable=False),
    Column("evidence", Float),
)

samples = Table(
    "samples",
    metadata,
    Column("row", Integer, primary_key=True),
    Column("sample_id", Text, nullable=False, unique=True),
    *_required_columns(Text, "text"),
    *_required_columns(Integer, "n_text", "n_image", "n_special", "n_sink"),
    *_optional(Integer, "width", "height"),
    *_required_columns(Integer, "n_images"),
    *_required_columns(JSON, "images", "views", "extra"),
    *_optional(Float, "fvu_text", "fvu_image", *map(score_column, SCORES), *map(flag_column, FLAGS)),
    Column("near_row", Integer),
    Column("near_cosine", Float),
)
SAMPLE_SORTS = ("row", *SCORES, *FLAGS)
for _name in (*map(score_column, SCORES), *map(flag_column, FLAGS)):
    Index(f"samples_{_name}", samples.c[_name], samples.c.row)

flags = Table(
    "flags",
    metadata,
    Column("name", Text, primary_key=True),
    *_required_columns(Text, "title", "description", "source"),
    Column("unit", Text),
    *_required_columns(Float, "threshold"),
    *_required_columns(Integer, "count"),
    *_optional(Float, "auroc", "auroc_low", "auroc_high"),
    Column("hist", JSON, nullable=False),
)

flag_reasons = Table(
    "flag_reasons",
    metadata,
    Column("row", Integer, ForeignKey("samples.row"), primary_key=True),
    Column("flag", Text, ForeignKey("flags.name"), primary_key=True),
    Column("reason", JSON, nullable=False),
)

examples = Table(
    "examples",
    metadata,
    Column("feature", Integer, ForeignKey("features.id"), primary_key=True),
    Column("modality", Integer, primary_key=True),
    Column("band", Integer, primary_key=True),  # −1 = strongest overall, 0–3 = octaves down from the largest
    Column("rank", Integer, primary_key=True),
    Column("row", Integer, ForeignKey("samples.row"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("value", Integer, nullable=False),  # bits of the float16 in stored units: they order as the values do
    *_required_columns(Integer, "n_active", "n_same"),
    Index("examples_row", "row", sqlite_where=text("band = -1 AND rank = 0")),  # whose strongest sample is this one?
    sqlite_with_rowid=False,
)

scores = Table(
    "scores",
    metadata,
    Column("name", Text, primary_key=True),
    Column("description", Text, nullable=False),
    *_optional(Float, "mean", "std", "median"),
    Column("quantiles", JSON, nullable=False),  # at 0, 1/1000, …, 1, each a sample's own score; [] where none has one
    Column("hist", JSON, nullable=False),
    Column("length_rho", Float),
    Column("auroc", JSON),
)

vocabulary = Table(
    "vocabulary",
    metadata,
    Column("token_id", Integer, primary_key=True),
    Column("text", Text, nullable=False),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("idx", Integer, primary_key=True),
    Column("sample_id", Text),
    Column("reason", Text, nullable=False),
)

COLUMNS = "SELECT t.name, c.name FROM sqlite_master t LEFT JOIN pragma_table_info(t.name) c WHERE t.type = 'table'"
"""Query for what `missing_columns` needs to know of a database."""


def columns_of(rows: Iterable[Sequence[str]]) -> dict[str, set[str]]:
    """Table → its columns, of the rows of `COLUMNS`."""
    columns: dict[str, set[str]] = {}
    for table, column in rows:
        columns.setdefault(table, set()).add(column)
    return columns


def missing_columns(columns: Mapping[str, set[str]]) -> list[Column[Any]]:
    """The columns that a database lacks, but of `LATER_TABLES`. Those come first that every store of this schema has:
    they cannot be null. The others came later.

    Args:
        columns: of `columns_of`.
    """
    tables = [table for table in metadata.sorted_tables if table.name in columns or table.name not in LATER_TABLES]
    absent = [c for table in tables for c in table.columns if c.name not in columns.get(table.name, ())]
    return sorted(absent, key=lambda column: bool(column.nullable))


# Full text: rowid = features.id and samples.row; only the index is stored (`content=''`). SQLAlchemy has no construct
# for FTS5. SQLite's tokenizers know neither languages without spaces nor characters that Unicode gained since 2012, so
# utils/text.py splits texts into units: the tables are given units with blanks between (`sql.indexed_words`), and to
# the tokenizer everything but a blank is part of a unit.
_SIGNS = "".join(chr(code) for code in range(33, 127) if not chr(code).isalnum()).replace("'", "''").replace('"', '""')
TOKENIZE = f"tokenize=\"porter ascii tokenchars '{_SIGNS}'\""
FTS = (
    f"CREATE VIRTUAL TABLE feature_fts USING fts5(label, promoted, content='', {TOKENIZE})",
    # Captions are ordered by their own length, so their lengths in units are not needed.
    f"CREATE VIRTUAL TABLE sample_fts USING fts5(text, content='', columnsize=0, {TOKENIZE})",
)

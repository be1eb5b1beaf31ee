"""The tables of a database of annotations. A change here needs a migration (migrations/versions)."""

from sqlalchemy import JSON, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text, UniqueConstraint

metadata = MetaData()

versions = Table(
    "versions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("store", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("key", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("author", Text, nullable=False),
    Column("at", String(32), nullable=False),
    Column("body", JSON(none_as_null=True)),
    UniqueConstraint("store", "kind", "key", "version", name="one_of_each_version"),
    Index("versions_of_store", "store", "id"),
    sqlite_autoincrement=True,
)
"""Every version that anything had, never changed and never deleted. `store` is a content id, `at` a time in UTC, `body`
null where the thing was deleted. The newest version of a (store, kind, key) is what holds; of two people who write the
same version number only one can, so nobody overwrites what they have not seen."""

directions = Table(
    "directions",
    metadata,
    Column("store", String(64), primary_key=True),
    Column("feature", Integer, primary_key=True, autoincrement=False),
    Column("vector", LargeBinary, nullable=False),
)
"""Decoder directions of the features that something was written about, so that it can be carried over to a store that
was made again after the old one is gone: float16, as `carry.sketch` makes them."""

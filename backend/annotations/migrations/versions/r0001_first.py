"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "versions",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("store", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("body", sa.JSON),
        sa.UniqueConstraint("store", "kind", "key", "version", name="one_of_each_version"),
        sqlite_autoincrement=True,
    )
    op.create_index("versions_of_store", "versions", ["store", "id"])
    op.create_table(
        "directions",
        sa.Column("store", sa.String(64), primary_key=True),
        sa.Column("feature", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("directions")
    op.drop_table("versions")

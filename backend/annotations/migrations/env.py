"""Alembic runs this file; `database.migrate` gives it the connection."""

from alembic import context

from backend.annotations.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()

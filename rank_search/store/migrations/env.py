"""Run by Alembic: applies the migrations on the connection that `rank_search.store.schema` hands over."""

from __future__ import annotations

from alembic import context

from rank_search.store.schema import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()

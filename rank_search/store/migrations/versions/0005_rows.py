"""A trial may have several results: those that share a training say whose it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rs_trial", sa.Column("cut_of", sa.Integer))
    op.create_index(
        "rs_trial_cut",
        "rs_trial",
        ["study_id", "cut_of", "state", "finished", "worker"],
        sqlite_where=sa.text("cut_of IS NOT NULL"),
        postgresql_where=sa.text("cut_of IS NOT NULL"),
    )

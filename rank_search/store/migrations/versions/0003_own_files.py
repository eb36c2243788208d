"""A study's files under a name of its own; accepted changes of what a study is made from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rs_study", sa.Column("uid", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "rs_change",
        sa.Column("study_id", sa.Integer, sa.ForeignKey("rs_study.id"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("part", sa.Text, nullable=False),
        sa.Column("before", sa.Text, nullable=False),
        sa.Column("after", sa.Text, nullable=False),
        sa.Column("accepted", sa.DateTime, nullable=False),
        sa.Column("last_trial_id", sa.Integer, nullable=False),
    )

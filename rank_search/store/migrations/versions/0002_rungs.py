"""Rungs: claims with a budget; where a study's files are, and how many trials it is to reach; indexes for a million."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BUDGETS = "UPDATE rs_claim SET budget = (SELECT rs_study.budget FROM rs_study WHERE rs_study.id = rs_claim.study_id)"


def upgrade() -> None:
    op.add_column("rs_study", sa.Column("artifacts", sa.Text, nullable=False, server_default=""))
    op.add_column("rs_study", sa.Column("target", sa.Integer))
    op.add_column("rs_claim", sa.Column("budget", sa.Double, nullable=False, server_default="0"))
    op.execute(BUDGETS)
    op.drop_index("rs_trial_front", "rs_trial")
    op.create_index("rs_trial_front", "rs_trial", ["dominated_by", "study_id", "eligible", "id", "budget"])
    op.create_index(
        "rs_trial_member",
        "rs_trial",
        ["study_id", "eligible", "id", "dominated_by", "budget"],
        sqlite_where=sa.text("eligible = 1 AND (dominated_by IS NULL OR dominated_by > id)"),
        postgresql_where=sa.text("eligible AND (dominated_by IS NULL OR dominated_by > id)"),
    )
    op.create_index("rs_trial_state", "rs_trial", ["study_id", "state"])
    op.create_index("rs_trial_finished", "rs_trial", ["study_id", "finished", "worker"])

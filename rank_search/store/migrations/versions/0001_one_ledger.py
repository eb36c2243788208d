"""The ledger: studies, claims, trials, and the front as a view."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# One row for each measurement of each member of each study's front.
PARETO_FRONT = """
CREATE VIEW pareto_front AS
SELECT rs_study.name AS study,
       rs_trial.number AS trial,
       rs_trial.id AS trial_id,
       rs_measurement.name AS measurement,
       rs_measurement.value AS value,
       rs_objective.direction AS direction
FROM rs_trial
JOIN rs_study ON rs_study.id = rs_trial.study_id
JOIN rs_measurement ON rs_measurement.trial_id = rs_trial.id
                   AND rs_measurement.budget = rs_trial.budget
LEFT JOIN rs_objective ON rs_objective.study_id = rs_trial.study_id
                      AND rs_objective.name = rs_measurement.name
WHERE rs_trial.eligible AND rs_trial.dominated_by IS NULL
"""


def upgrade() -> None:
    _create_study_tables()
    _create_claim_table()
    _create_trial_table()
    _create_tables_of_a_trial()
    op.execute(PARETO_FRONT)


def _create_study_tables() -> None:
    op.create_table(
        "rs_study",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("fingerprint", sa.JSON, nullable=False),
        sa.Column("space", sa.JSON, nullable=False),
        sa.Column("reference_point", sa.JSON, nullable=False),
        sa.Column("ideal", sa.JSON, nullable=False),
        sa.Column("dense", sa.JSON, nullable=False),
        sa.Column("budget", sa.Double, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
    )
    op.create_table(
        "rs_objective",
        sa.Column("study_id", sa.Integer, sa.ForeignKey("rs_study.id"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("direction", sa.Text, nullable=False),
    )
    op.create_table(
        "rs_prior",
        sa.Column("study_id", sa.Integer, sa.ForeignKey("rs_study.id"), primary_key=True),
        sa.Column("layer", sa.Text, primary_key=True),
        sa.Column("factorization", sa.Text, primary_key=True),
        sa.Column("axis", sa.Text, primary_key=True),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("full_rank", sa.Integer, nullable=False),
        sa.Column("noise_variance", sa.Double),
        sa.Column("energy_kept", sa.Double),
        sa.Column("break_even", sa.Double),
    )


def _create_claim_table() -> None:
    op.create_table(
        "rs_claim",
        sa.Column("study_id", sa.Integer, sa.ForeignKey("rs_study.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("point", sa.JSON, nullable=False),
        sa.Column("point_key", sa.Text, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("started", sa.DateTime, nullable=False),
        sa.Column("heartbeat", sa.DateTime, nullable=False),
        sa.Column("sampler", sa.Text, nullable=False),
        sa.UniqueConstraint("study_id", "point_key"),
    )


def _create_trial_table() -> None:
    op.create_table(
        "rs_trial",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study_id", sa.Integer, sa.ForeignKey("rs_study.id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("budget", sa.Double, nullable=False),
        sa.Column("rng_seed", sa.BigInteger, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("started", sa.DateTime, nullable=False),
        sa.Column("finished", sa.DateTime, nullable=False),
        sa.Column("eligible", sa.Boolean, nullable=False),
        sa.Column("dominated_by", sa.Integer, sa.ForeignKey("rs_trial.id")),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("point_key", sa.Text, nullable=False),
        sa.Column("sampler", sa.Text, nullable=False),
        sa.Column("point", sa.JSON, nullable=False),
        sa.UniqueConstraint("study_id", "number"),
        sa.UniqueConstraint("study_id", "point_key"),
    )
    op.create_index("rs_trial_front", "rs_trial", ["study_id", "dominated_by", "eligible", "id", "budget"])
    op.create_index("rs_trial_recorded", "rs_trial", ["study_id", "id", "dominated_by", "eligible", "budget"])


def _create_tables_of_a_trial() -> None:
    op.create_table(
        "rs_choice",
        sa.Column("trial_id", sa.Integer, sa.ForeignKey("rs_trial.id"), primary_key=True),
        sa.Column("layer", sa.Text, primary_key=True),
        sa.Column("factorization", sa.Text, primary_key=True),
        sa.Column("axis", sa.Text, primary_key=True),
        sa.Column("value", sa.Double),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rs_measurement",
        sa.Column("trial_id", sa.Integer, sa.ForeignKey("rs_trial.id"), primary_key=True),
        sa.Column("budget", sa.Double, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rs_artifact",
        sa.Column("trial_id", sa.Integer, sa.ForeignKey("rs_trial.id"), primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("location", sa.Text, primary_key=True),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
    )

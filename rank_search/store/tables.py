"""The tables, as SQLAlchemy 2.1 typed columns; `docs/store.md` explains them to a reader of plain SQL.

Typed tables instead of mapped classes: `sqlalchemy.orm` alone takes a tenth of a second to import, a fifth of
what a whole `rank-search front` may take. The migrations build the same schema; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Named,
    Table,
    Text,
    TypedColumns,
    TypeDecorator,
    UniqueConstraint,
    text,
)

metadata: Final = MetaData()


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, stored as UTC without a zone, because SQLite knows no zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class _StudyColumns(TypedColumns):
    id: Named[int] = Column(Integer, primary_key=True)
    name: Named[str] = Column(Text, unique=True)
    fingerprint: Named[dict[str, str]] = Column(JSON)
    space: Named[dict[str, Any]] = Column(JSON)
    reference_point: Named[dict[str, float]] = Column(JSON)
    ideal: Named[dict[str, float]] = Column(JSON)
    dense: Named[dict[str, float]] = Column(JSON)
    budget: Named[float] = Column(Double)
    created: Named[datetime] = Column(UtcDateTime)
    artifacts: Named[str] = Column(Text, server_default="")
    target: Named[int | None] = Column(Integer)
    uid: Named[str] = Column(Text, server_default="")


class _ObjectiveColumns(TypedColumns):
    study_id: Named[int] = Column(ForeignKey("rs_study.id"), primary_key=True)
    position: Named[int] = Column(Integer, primary_key=True, autoincrement=False)
    name: Named[str] = Column(Text)
    direction: Named[str] = Column(Text)


class _PriorColumns(TypedColumns):
    study_id: Named[int] = Column(ForeignKey("rs_study.id"), primary_key=True)
    layer: Named[str] = Column(Text, primary_key=True)
    factorization: Named[str] = Column(Text, primary_key=True)
    axis: Named[str] = Column(Text, primary_key=True)
    rank: Named[int] = Column(Integer)
    full_rank: Named[int] = Column(Integer)
    noise_variance: Named[float | None] = Column(Double)
    energy_kept: Named[float | None] = Column(Double)
    break_even: Named[float | None] = Column(Double)


class _ChangeColumns(TypedColumns):
    study_id: Named[int] = Column(ForeignKey("rs_study.id"), primary_key=True)
    position: Named[int] = Column(Integer, primary_key=True, autoincrement=False)
    part: Named[str] = Column(Text)
    # The fingerprints of the part, and the last trial of before: 0 for none.
    before: Named[str] = Column(Text)
    after: Named[str] = Column(Text)
    accepted: Named[datetime] = Column(UtcDateTime)
    last_trial_id: Named[int] = Column(Integer)


class _ClaimColumns(TypedColumns):
    study_id: Named[int] = Column(ForeignKey("rs_study.id"), primary_key=True)
    number: Named[int] = Column(Integer, primary_key=True, autoincrement=False)
    point: Named[dict[str, Any]] = Column(JSON)
    point_key: Named[str] = Column(Text)
    worker: Named[str] = Column(Text)
    attempt: Named[int] = Column(Integer)
    started: Named[datetime] = Column(UtcDateTime)
    heartbeat: Named[datetime] = Column(UtcDateTime)
    sampler: Named[str] = Column(Text)
    budget: Named[float] = Column(Double, server_default="0")


class _TrialColumns(TypedColumns):
    id: Named[int] = Column(Integer, primary_key=True)
    study_id: Named[int] = Column(ForeignKey("rs_study.id"))
    number: Named[int] = Column(Integer)
    state: Named[str] = Column(Text)
    budget: Named[float] = Column(Double)
    rng_seed: Named[int] = Column(BigInteger)
    worker: Named[str] = Column(Text)
    attempt: Named[int] = Column(Integer)
    started: Named[datetime] = Column(UtcDateTime)
    finished: Named[datetime] = Column(UtcDateTime)
    # Whether it took part in the front at all: complete, and at the study's full budget.
    eligible: Named[bool]
    dominated_by: Named[int | None] = Column(ForeignKey("rs_trial.id"))
    reason: Named[str] = Column(Text)
    point_key: Named[str] = Column(Text)
    # Long, and therefore last: SQLite reads a row from its beginning.
    sampler: Named[str] = Column(Text)
    point: Named[dict[str, Any]] = Column(JSON)
    # What the model has become, where training has emptied components of the point.
    settled: Named[dict[str, Any] | None] = Column(JSON(none_as_null=True))
    # The number of the trial whose model this one is, cut; none of a trial that was trained itself.
    cut_of: Named[int | None] = Column(Integer)


class _ChoiceColumns(TypedColumns):
    trial_id: Named[int] = Column(ForeignKey("rs_trial.id"), primary_key=True)
    layer: Named[str] = Column(Text, primary_key=True)
    factorization: Named[str] = Column(Text, primary_key=True)
    # A choice without axes, such as dense, is one row with an empty axis and no value.
    axis: Named[str] = Column(Text, primary_key=True)
    value: Named[float | None] = Column(Double)


class _MeasurementColumns(TypedColumns):
    trial_id: Named[int] = Column(ForeignKey("rs_trial.id"), primary_key=True)
    budget: Named[float] = Column(Double, primary_key=True)
    name: Named[str] = Column(Text, primary_key=True)
    value: Named[float] = Column(Double)


class _ArtifactColumns(TypedColumns):
    trial_id: Named[int] = Column(ForeignKey("rs_trial.id"), primary_key=True)
    kind: Named[str] = Column(Text, primary_key=True)
    location: Named[str] = Column(Text, primary_key=True)
    sha256: Named[str] = Column(Text)
    bytes: Named[int] = Column(BigInteger)


study: Final = Table("rs_study", metadata, _StudyColumns)
objective: Final = Table("rs_objective", metadata, _ObjectiveColumns)
prior: Final = Table("rs_prior", metadata, _PriorColumns)
change: Final = Table("rs_change", metadata, _ChangeColumns)
claim: Final = Table("rs_claim", metadata, _ClaimColumns, UniqueConstraint("study_id", "point_key"))
trial: Final = Table(
    "rs_trial",
    metadata,
    _TrialColumns,
    UniqueConstraint("study_id", "number"),
    UniqueConstraint("study_id", "point_key"),
    # They hold all that is asked of many trials at once: their long rows stay unread. The first serves the present
    # front, and finds whom a trial dominates; the third the past ones: it knows only the few that were ever members.
    Index("rs_trial_front", "dominated_by", "study_id", "eligible", "id", "budget"),
    Index("rs_trial_recorded", "study_id", "id", "dominated_by", "eligible", "budget"),
    Index(
        "rs_trial_member",
        "study_id",
        "eligible",  # no condition can be read back from a partial index, so it is a column too
        "id",
        "dominated_by",
        "budget",
        sqlite_where=text("eligible = 1 AND (dominated_by IS NULL OR dominated_by > id)"),
        postgresql_where=text("eligible AND (dominated_by IS NULL OR dominated_by > id)"),
    ),
    Index("rs_trial_state", "study_id", "state"),
    Index("rs_trial_finished", "study_id", "finished", "worker"),
    Index(
        "rs_trial_cut",
        "study_id",
        "cut_of",
        "state",
        "finished",
        "worker",
        sqlite_where=text("cut_of IS NOT NULL"),
        postgresql_where=text("cut_of IS NOT NULL"),
    ),
)
# The rows of a trial lie together, in the order of their key: SQLite's `WITHOUT ROWID`.
choice: Final = Table("rs_choice", metadata, _ChoiceColumns, sqlite_with_rowid=False)
measurement: Final = Table("rs_measurement", metadata, _MeasurementColumns, sqlite_with_rowid=False)
artifact: Final = Table("rs_artifact", metadata, _ArtifactColumns)

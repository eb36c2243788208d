"""The store: studies, claims, trials and fronts in one SQL database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from rank_search.errors import StoreError
from rank_search.fronts import audit, claims, ledger, queries, schema, studies
from rank_search.fronts.database import Database, locate
from rank_search.fronts.queries import FrontQuery
from rank_search.fronts.records import Claim, StudyRecord, StudySummary, TrialRow
from rank_search.point import Artifact, Bound, Outcome, Point


@final
class Store:
    """An open store: a context manager, to be shared by the threads of one process.

    Every method is one transaction, or reads from one snapshot; a process that is killed in the middle leaves what
    was there before. Every method raises `StoreError` if the database cannot be reached, read or written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, where: str | Path, create: bool = False) -> Store:
        """Open the store at a path or an SQLAlchemy URL.

        Raises:
            StoreError: it is missing and `create` is false, no store, unreachable, or of a newer version.
        """
        database = Database(locate(where))
        try:
            _see_to_file(database, create)
            schema.prepare(database, create)
        except BaseException:
            database.close()
            raise
        return cls(database)

    @property
    def location(self) -> str:
        """Where the store is, without any password."""
        return self._database.location

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # studies ---------------------------------------------------------------------------------------------

    def join(self, record: StudyRecord) -> StudyRecord:
        """Begin the study, or go on with the one of that name; returns it as the store has it.

        Raises:
            StudyMismatchError: the study in the store was made from something else.
        """
        with self._database.writing() as connection:
            self._database.queue(connection)
            return studies.join(connection, record, self.location)

    def studies(self) -> list[StudySummary]:
        """All studies, in the order they were begun."""
        with self._database.reading() as connection:
            return studies.summaries(connection)

    def study(self, name: str) -> StudyRecord:
        """The study of that name.

        Raises:
            QueryError: there is none.
        """
        with self._database.reading() as connection:
            return studies.get(connection, name, self.location)

    # claims ----------------------------------------------------------------------------------------------

    def claim(
        self,
        study: StudyRecord,
        point: Point,
        worker: str,
        sampler: Mapping[str, Any] | None = None,
        below: int | None = None,
    ) -> Claim | None:
        """Claim the point for the worker under the next free number, counted from 0.

        `sampler` is whatever the searcher needs to be told about this trial again; it must fit into JSON.
        Returns `None` if the point has been claimed or tried before in this study, or if the next free number
        is not below `below`: so several drivers make exactly as many trials as were asked for.
        """
        with self._database.writing() as connection:
            return claims.take(connection, study, point, worker, sampler or {}, below)

    def claims(self, study: StudyRecord) -> list[Claim]:
        """The trials in flight, by number."""
        with self._database.reading() as connection:
            return claims.held(connection, study)

    def next_number(self, study: StudyRecord) -> int:
        """The number that the next claim gets, unless another process claims before."""
        with self._database.reading() as connection:
            return claims.next_number(connection, study)

    def take_over(
        self,
        study: StudyRecord,
        worker: str,
        expired_before: datetime,
        dead: Callable[[str], bool] = lambda worker: False,
    ) -> Claim | None:
        """Adopt the first claim whose last heartbeat is older than `expired_before`, or whose worker is `dead`.

        Returns `None` if there is no such claim. No claim goes to two workers.
        """
        with self._database.reading() as connection:
            if claims.first_orphan(connection, study, expired_before, dead) is None:
                return None
        with self._database.writing() as connection:
            return claims.adopt(connection, study, worker, expired_before, dead)

    def heartbeat(self, study: StudyRecord, held: Iterable[Claim]) -> list[Claim]:
        """Keep the claims alive; returns those that are lost: handed on, or recorded meanwhile."""
        with self._database.writing() as connection:
            return claims.keep_alive(connection, study, held)

    def release(self, study: StudyRecord, held: Iterable[Claim]) -> None:
        """Give the claims up, so that the next `take_over` gets them at once, with as many attempts as before."""
        with self._database.writing() as connection:
            claims.give_up(connection, study, held)

    # trials ----------------------------------------------------------------------------------------------

    def record(
        self,
        study: StudyRecord,
        held: Claim,
        outcome: Outcome,
        *,
        budget: float,
        rng_seed: int,
        started: datetime,
        finished: datetime,
    ) -> None:
        """Turn the claim into a finished trial, and judge it against the front, in one transaction.

        A claim is recorded once: if another worker took it over and was faster, or this call is repeated, the row
        that is already there stays as it is. Measurements that are not finite are not stored.

        Raises:
            StoreError: a complete trial lacks a finite objective, or the point was never claimed.
        """
        ending = ledger.Ending(outcome, budget, rng_seed, started, finished)
        with self._database.writing() as connection:
            ledger.record(connection, study, held, ending)

    def amend(self, study: StudyRecord, number: int, measurements: Mapping[str, float]) -> TrialRow:
        """Add measurements to a finished trial; those it already has, with the same values, are left alone.

        Raises:
            StoreError: the trial has another value under one of the names.
            QueryError: there is no such trial.
        """
        with self._database.writing() as connection:
            row = queries.one_trial(connection, study, number)
            ledger.amend(connection, study, row, measurements)
            return queries.one_trial(connection, study, number)

    def forget_artifacts(self, study: StudyRecord, number: int) -> tuple[Artifact, ...]:
        """Remove the artifact rows of a trial that is not on the front, and return them.

        Delete the files afterwards: whatever happens in between, no row lacks its file.

        Raises:
            StoreError: the trial is on the front.
            QueryError: there is no such trial.
        """
        with self._database.writing() as connection:
            row = queries.one_trial(connection, study, number)
            ledger.forget_artifacts(connection, study, row)
            return row.artifacts

    def trials(self, study: StudyRecord, skip: int = 0) -> list[TrialRow]:
        """Every finished trial but the first `skip` that were recorded, by number."""
        with self._database.reading() as connection:
            return queries.trials(connection, study, skip)

    def trial(self, study: StudyRecord, number: int) -> TrialRow:
        """The finished trial of that number.

        Raises:
            QueryError: there is none.
        """
        with self._database.reading() as connection:
            return queries.one_trial(connection, study, number)

    # fronts ----------------------------------------------------------------------------------------------

    def front(
        self,
        study: StudyRecord,
        where: Sequence[Bound] = (),
        sort: str | None = None,
        limit: int | None = None,
        objectives: Sequence[str] | None = None,
        as_of: int | None = None,
    ) -> list[TrialRow]:
        """The Pareto front: complete trials at full budget that no other one dominates.

        `where` keeps the members within every bound. `sort` names a measurement, best first; without it, the
        first objective. What is no objective is better when smaller, members that lack it come last, and ties
        stand as they were recorded. `limit` keeps the first few. `objectives` recomputes the front for these
        measurements alone. `as_of` shows the front as it was when that trial had just been recorded.

        Raises:
            QueryError: a name that was never measured, no such trial, or a limit below 1.
        """
        query = FrontQuery(where, sort, limit, objectives, as_of)
        with self._database.reading() as connection:
            return queries.front(connection, study, query)

    def check(self, study: StudyRecord, artifact_folder: Path | None = None) -> list[str]:
        """Recompute what the store says about the study, and return every disagreement in words.

        The front and its whole past from the losses alone, the choice rows and keys from the points, and, with a
        folder, the length and digest of every artifact.
        """
        with self._database.reading() as connection:
            return audit.problems(connection, study, artifact_folder)


def _see_to_file(database: Database, create: bool) -> None:
    """An SQLite file is made only on purpose; its folder is made with it."""
    file = database.file
    if file is None or file.exists():
        return
    if not create:
        raise StoreError(f"There is no store at {file}. Check the path; `rank-search run` makes a store.")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"The folder of the store {file} cannot be made: {error.strerror}.") from None

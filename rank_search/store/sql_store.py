"""The store: studies, claims, trials and fronts in one SQL database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, final

from sqlalchemy import Connection

from rank_search.artifacts import Tenant, recoveries_of
from rank_search.errors import StoreError
from rank_search.point import Artifact, Condition, Execution, Outcome, Point, State, parse_condition
from rank_search.store import activity, audit, claims, ledger, listing, moments, queries, removal, schema, studies
from rank_search.store.address import locate
from rank_search.store.database import Database
from rank_search.store.front import Front
from rank_search.store.queries import FrontQuery
from rank_search.store.records import NEVER, Activity, Claim, StudyRecord, StudySummary, TrialRow

if TYPE_CHECKING:
    from rank_search.artifacts import ArtifactStore


@final
class Store:
    """An open store: a context manager, to be shared by the threads of one process.

    Where a study is asked for, its name will do; only what a driver does with claims takes its record. Every method is
    one transaction, or reads from one snapshot; a process that is killed in the middle leaves what was there before.
    Every method raises `StoreError` if the database cannot be reached, read or written.

    While the database is away or busy (its server restarts, the network is down, the disk is full), every method tries
    again, up to `patience` seconds, and raises `StoreAwayError` then. What it had written before, it does not write
    again; but
    `claim`, `promote` and `take_over` may then return `None` with a claim in the worker's name that it does not know:
    `take_over` finds that one too, if its `dead` says so.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._losses: ledger.Losses = {}

    @classmethod
    def open(cls, where: str | Path, create: bool = False, patience: float = 0.0) -> Store:
        """Open the store at a path or an SQLAlchemy URL; one of an older version is brought up to date.

        Raises:
            StoreError: it is missing and `create` is false, no store, unreachable, or of a newer version.
        """
        database = Database(locate(where), patience)
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

    @property
    def tenant(self) -> Tenant:
        """The store as others know it that use the same files."""
        file = self._database.file
        return Tenant(self._database.identity(), self.location if file is None else str(file.resolve()))

    def close(self) -> None:
        self._database.close()

    def wait_no_longer(self) -> None:
        """Have no patience from now on: whoever waits for the database is told at once that it is away."""
        self._database.wait_no_longer()

    def now(self) -> datetime:
        """The moment by the database's clock, which all moments in the store are by."""
        return self._database.read(moments.now)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # studies ---------------------------------------------------------------------------------------------

    def join(self, record: StudyRecord, accept_changes: bool = False) -> StudyRecord:
        """Begin the study, or resume the one of that name; returns it as the store has it.

        `accept_changes` goes on although the code of the task or of a plugin has changed, and notes that.

        Raises:
            StudyMismatchError: the study in the store was made from something else.
        """
        return self._database.write(self._join, record, accept_changes)

    def _join(self, connection: Connection, record: StudyRecord, accept_changes: bool) -> StudyRecord:
        self._database.queue(connection)
        return studies.join(connection, record, self.location, accept_changes)

    def set_target(self, study: StudyRecord | str, target: int) -> None:
        """Note how many trials the drivers are to reach, for whoever watches."""
        self._database.write(studies.set_target, self._record_of(study), target)

    def amend_dense(self, study: StudyRecord | str, measurements: Mapping[str, float]) -> StudyRecord:
        """Add measurements of the dense model; those that the study has already, from whichever driver, stay."""
        return self._database.write(studies.amend_dense, self._record_of(study), measurements)

    def studies(self) -> list[StudySummary]:
        """All studies, in the order they were begun."""
        return self._database.read(studies.summaries)

    def study(self, name: str) -> StudyRecord:
        """The study of that name.

        Raises:
            QueryError: there is none.
        """
        return self._database.read(studies.get, name, self.location)

    def delete(self, name: str, heard_since: datetime, artifacts: ArtifactStore | None = None) -> int:
        """Delete a study with all its trials and, if its artifacts are given, their files, checkpoints of trainings
        that were not at their end among them; returns how many trials.

        The rows go in one transaction, and the files after it: if anything happens in between, no row lacks its file.

        Raises:
            QueryError: there is no such study, or a driver that was heard of since then holds a trial of it.
            ArtifactError: a file cannot be removed; the rows are gone.
        """
        removed = self._database.write(removal.remove, name, self.location, heard_since)
        if artifacts is not None:
            left = [each.name for each in recoveries_of(artifacts, removed.keys)]
            artifacts.clear([*removed.files, *left])
        return removed.trials

    def rename(self, name: str, new: str, heard_since: datetime) -> list[str]:
        """Give a study another name, and its confirmations `NAME@EPOCHS` with it; returns all the new names.

        Raises:
            QueryError: there is no such study, one has the new name, or a driver that was heard of since then holds a
                trial.
        """
        return self._database.write(self._rename, name, new, heard_since)

    def _rename(self, connection: Connection, name: str, new: str, heard_since: datetime) -> list[str]:
        self._database.queue(connection)
        return removal.rename(connection, name, new, self.location, heard_since)

    def _record_of(self, study: StudyRecord | str) -> StudyRecord:
        return self.study(study) if isinstance(study, str) else study

    # claims ----------------------------------------------------------------------------------------------

    def claim(
        self,
        study: StudyRecord,
        point: Point,
        worker: str,
        sampler: Mapping[str, Any] | None = None,
        below: int | None = None,
        budget: float | None = None,
    ) -> Claim | None:
        """Claim the point for the worker under the next free number, counted from 0.

        `sampler` is what the searcher needs to be told about this trial again; it must fit into JSON. `budget` is
        how far the trial is to go; by default, all the way. Returns `None` if the point has been claimed or tried
        before in this study, or if as many trials as `below` have been begun: so several drivers make exactly as many
        as were asked for.
        """
        up_to = study.budget if budget is None else budget
        wanted = Claim(-1, point, worker, attempt=1, started=NEVER, sampler=sampler or {}, budget=up_to)
        return self._database.write(claims.take, study, wanted, below)

    def promote(self, study: StudyRecord, number: int, worker: str, budget: float) -> Claim | None:
        """Claim a stopped trial again, to go on to a larger budget.

        Returns `None` if it is claimed already, or is not (or no longer) stopped below that budget.
        """
        return self._database.write(claims.promote, study, number, worker, budget)

    def claims(self, study: StudyRecord | str) -> list[Claim]:
        """The trials in flight, by number."""
        return self._database.read(claims.held, self._record_of(study))

    def next_number(self, study: StudyRecord | str) -> int:
        """The number that the next claim gets, unless another process claims before."""
        return self._database.read(claims.next_number, self._record_of(study))

    def begun(self, study: StudyRecord | str) -> int:
        """How many trials have been claimed or recorded; further results of a training, its cuts, do not count."""
        return self._database.read(claims.begun, self._record_of(study))

    def take_over(
        self, study: StudyRecord, worker: str, dead: Callable[[Claim], bool] = lambda claim: not claim.worker
    ) -> tuple[Claim, str] | None:
        """Adopt the first claim that is `dead`; by default, one that its worker gave up (it has none).

        Returns it, and the worker who held it before (none if that one gave it up); `None` if there is no such claim.
        No claim goes to two workers; one may go to its own worker again.
        """
        if self._database.read(claims.first_orphan, study, dead) is None:
            return None
        return self._database.write(claims.adopt, study, worker, dead)

    def heartbeat(self, study: StudyRecord, held: Iterable[Claim]) -> list[Claim]:
        """Keep the claims alive; returns those that are lost: handed on, or recorded meanwhile.

        It succeeds only if the study can be written to, even without claims.
        """
        return self._database.write(claims.keep_alive, study, list(held))

    def release(self, study: StudyRecord, held: Iterable[Claim]) -> None:
        """Give the claims up, so that the next `take_over` gets them at once, with as many attempts as before."""
        self._database.write(claims.give_up, study, list(held))

    # trials ----------------------------------------------------------------------------------------------

    def record(self, study: StudyRecord, held: Claim, outcome: Outcome, ran: Execution) -> bool:
        """Turn the claim into a finished trial at its budget, and judge it against the front, in one transaction.

        A claim is recorded once: if another worker took it over and was faster, or this call is repeated, the row that
        is already there stays as it is; returns whether that row says what this call does. The row of a promoted trial
        takes the place of its former one: its number stays, its id is a new and larger one, and the measurements at
        smaller budgets stay with it. Measurements that are not finite are not stored. Each cut in the outcome's row
        becomes a row under the next free number, unless its point has been claimed or tried.

        Raises:
            StoreError: a complete or stopped trial lacks a finite objective, or the point was never claimed.
        """
        return self._database.write(ledger.record, study, held, outcome, ran, self._losses)

    def amend(self, study: StudyRecord | str, number: int, measurements: Mapping[str, float]) -> TrialRow:
        """Add measurements to a finished trial; those it already has, with the same values, are left alone.

        Raises:
            StoreError: the trial has another value under one of the names.
            QueryError: there is no such trial.
        """
        return self._database.write(ledger.amend, self._record_of(study), number, measurements)

    def forget_artifacts(self, study: StudyRecord | str, number: int) -> tuple[Artifact, ...]:
        """Remove the artifact rows of a trial that is not on the front, and return them.

        Delete the files afterwards: if anything happens in between, no row lacks its file.

        Raises:
            StoreError: the trial is on the front.
            QueryError: there is no such trial.
        """
        return self._database.write(ledger.forget_artifacts, self._record_of(study), number)

    def kept_among(self, study: StudyRecord | str, locations: Collection[str]) -> set[str]:
        """Those of the locations at which artifacts of finished trials lie."""
        return self._database.read(queries.kept_among, self._record_of(study), locations)

    def trials(self, study: StudyRecord | str, after: int = 0) -> list[TrialRow]:
        """Every finished trial whose id is larger than `after`, in the order of recording.

        Asking again after the last id that was seen finds what has been recorded since, promoted trials included.
        """
        return self._database.read(queries.trials, self._record_of(study), after)

    def listed(
        self,
        study: StudyRecord | str,
        where: Sequence[Condition | str] = (),
        states: Collection[State] = (),
        limit: int | None = None,
    ) -> list[TrialRow]:
        """Finished trials by number: those that meet every condition, in one of the states, and of these the last few.

        A condition is as in `front`; a trial in which the name of a bound was not measured is not within it.

        Raises:
            QueryError: a name that was never measured, or a limit below 1.
        """
        conditions = [parse_condition(each) if isinstance(each, str) else each for each in where]
        wanted = listing.Listing(conditions, states, limit)
        return self._database.read(listing.listed, self._record_of(study), wanted)

    def trial(self, study: StudyRecord | str, number: int) -> TrialRow:
        """The finished trial of that number.

        Raises:
            QueryError: there is none.
        """
        return self._database.read(queries.one_trial, self._record_of(study), number)

    def activity(self, study: StudyRecord | str, since: datetime) -> Activity:
        """What goes on: trials by state, claims, what has finished since that moment, and when the last one did."""
        return self._database.read(activity.activity, self._record_of(study), since)

    # fronts ----------------------------------------------------------------------------------------------

    def front(
        self,
        study: StudyRecord | str,
        where: Sequence[Condition | str] = (),
        sort: str | None = None,
        limit: int | None = None,
        objectives: Sequence[str] | None = None,
        as_of: int | None = None,
    ) -> Front:
        """The Pareto front: complete trials at full budget that no other one dominates.

        `where` keeps the members within every bound (or its text), be it on a measurement, which may be relative to the
        dense model's (`error <= dense + 0.01`), or on what was chosen for a layer (`conv2 = dense`) or one of its axes
        (`conv2.rank <= 16`); a layer without that axis, such as a dense one, is not within. `sort` names a
        measurement, best first; without it, the first objective. What is no objective is better when smaller, unless
        its name is known to be better when higher (`accuracy`, `psnr`); members that lack it come last, and ties stand
        as they were recorded. `limit` keeps the first few. `objectives` recomputes the front for these measurements
        alone. `as_of` shows the front as it was when that trial had just been recorded.

        Raises:
            QueryError: a name that was never measured, no such trial, or a limit below 1.
        """
        conditions = [parse_condition(each) if isinstance(each, str) else each for each in where]
        record, query = self._record_of(study), FrontQuery(conditions, sort, limit, objectives, as_of)
        found = self._database.read(queries.front, record, query)
        return Front(found, record, queries.objectives_of(record, query))

    def check(self, study: StudyRecord | str, artifacts: ArtifactStore | None = None) -> list[str]:
        """Recompute what the store says about the study, and return every disagreement in words.

        The front and its whole past from the losses alone, the choice rows and keys from the points, and, with the
        study's artifacts, the content of each.
        """
        record = self._record_of(study)
        found, files = self._database.read(audit.problems, record)
        return found if artifacts is None else found + self._check_files(record, files, artifacts)

    def _check_files(self, study: StudyRecord, files: audit.Files, artifacts: ArtifactStore) -> list[str]:
        """A file that is not there is a problem only if no driver has dropped it meanwhile, with its row."""
        suspects = audit.file_problems(files, artifacts)
        return self._database.read(audit.confirmed, study, suspects) if suspects else []


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

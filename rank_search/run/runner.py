"""Runs a study: wires the rooms along the path of the data, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from rank_search.errors import StudyFileError
from rank_search.observe import Report
from rank_search.point import State
from rank_search.run.allocations_alone import allocations_alone
from rank_search.run.front_on_test import why_optimistic, why_untested
from rank_search.run.join import forms_of
from rank_search.run.open_study import at_work
from rank_search.run.preparation import Prepared, with_forms
from rank_search.search import (
    AUTO,
    BOLACO,
    CONTINUOUS,
    TPE,
    AutoSearcher,
    KeptShares,
    OptunaSearcher,
    Searcher,
    Weakenings,
    at_the_bad_end,
    kept_dense,
)
from rank_search.store import Front, StudyRecord, TrialRow
from rank_search.study import Study, store_of
from rank_search.tasks import Task

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """A study that has run.

    Attributes:
        store: where it is kept; `shown` is the same without credentials.
        complete: whether it reached its number of trials.
        added: how many trials this run added.
        untested: in words, what was not measured on the test data, and why; empty if all was.
        allocated: in words, which share of the front's hypervolume the seed points' allocations have; or empty.
        optimistic: in words, that the selection data look like some that the dense model was trained on; or empty.
        all_failed: why the last trial failed, if every one of the study has; empty otherwise.
    """

    study: StudyRecord
    store: str = field(repr=False)  # it may hold a password
    shown: str
    front: Front
    complete: bool
    added: int
    untested: str = ""
    allocated: str = ""
    optimistic: str = ""
    all_failed: str = ""


def run_study(
    study: Study,
    *,
    task: Task | None = None,
    store: str | None = None,
    trials: int | None = None,
    workers: int | None = None,
    report: Report = lambda progress: None,
    accept_changes: bool = False,
) -> Result:
    """Run or resume a study until it has its number of finished trials in all.

    Args:
        task: the task, when it is at hand (then the trials run in this process, or on Ray); otherwise the study
            file's.
        store, trials, workers: instead of the study file's.
        report: told after every trial how far the search is.
        accept_changes: go on although the code of the task or of a plugin has changed since the study began.

    Raises:
        RankSearchError: something of the user's cannot be used, or the store has another study of that name.
    """
    if trials is not None and trials < 1:
        raise StudyFileError(f"trials is {trials}; it is the number of finished trials to reach, 1 or more.")
    with at_work(study.launched({"workers": workers}), task, store or store_of(study).url) as work:
        record = work.join(accept_changes)
        _warn_of_directions(record)
        prepared = with_forms(work.prepared, forms_of(record))
        _warn_of_kept_dense(prepared)
        searcher = _searcher(prepared, record)
        complete, added = work.drive(record, searcher, study.study.trials if trials is None else trials, report)
        record = work.store.study(record.name)
        front = work.store.front(record)
        return Result(
            study=record,
            store=work.location,
            shown=work.store.location,
            front=front,
            complete=complete,
            added=added,
            untested=why_untested(front, work.prepared.problem),
            allocated=allocations_alone(record, _of_seeds(work.store.trials(record), prepared), front),
            optimistic=why_optimistic(record),
            all_failed="" if front else _all_failed(work.store.trials(record)),
        )


def _searcher(prepared: Prepared, record: StudyRecord) -> Searcher:
    study = prepared.problem.study
    told = study.search, prepared.seeds, record.dense, study.study.seed
    if study.search.sampler in (AUTO, CONTINUOUS) and prepared.options is not None:
        return AutoSearcher(prepared.space, prepared.options, *told)
    if study.search.sampler == BOLACO and prepared.options is not None:
        return OptunaSearcher(KeptShares(prepared.space, prepared.options, study.search), *told)
    if study.search.sampler in (AUTO, CONTINUOUS):
        # No layer can be factorized, and the strengths of penalties are all there is.
        told = study.search.model_copy(update={"sampler": TPE}), *told[1:]
    return OptunaSearcher(Weakenings(prepared.space, prepared.costs), *told)


def _warn_of_directions(record: StudyRecord) -> None:
    for each in record.objectives:
        if each.name in record.dense and (said := at_the_bad_end(each, record.dense[each.name])):
            _log.warning("%s", said)


def _warn_of_kept_dense(prepared: Prepared) -> None:
    for said in kept_dense(prepared.space, prepared.costs, prepared.problem.study.search):
        _log.warning("%s", said)


def _of_seeds(rows: Sequence[TrialRow], prepared: Prepared) -> list[TrialRow]:
    """The trials of the seed points, which come first."""
    return [row for row in rows if row.number < len(prepared.seeds)]


def _all_failed(rows: Sequence[TrialRow]) -> str:
    """Why the last of the trials failed, if all have."""
    return rows[-1].reason if rows and all(row.state is State.FAILED for row in rows) else ""

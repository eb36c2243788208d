"""After a search: the dense model and the members of the front, measured on the test data, which no search sees."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from rank_search.basics import is_rate
from rank_search.errors import ArtifactError, LaunchError
from rank_search.launch import Executor, Job, all_of
from rank_search.point import State
from rank_search.store import Front, Store, StudyRecord, TrialRow, half_width
from rank_search.study import Problem
from rank_search.tasks import has_test
from rank_search.trials import on_test, test_measurements

_LEAST_SECONDS: Final = 60.0


def measure_on_test(
    store: Store,
    record: StudyRecord,
    problem: Problem,
    executor: Executor,
    report: Callable[[int], None] = lambda left: None,
    *,
    capped: bool,
) -> None:
    """Measure the dense model and each member of the front on the test data, once.

    Args:
        report: told how many members are left.
        capped: whether it ends when its share of the time is used up.

    Raises:
        LaunchError: a member could not be measured.
    """
    if problem.study.study.test != "front" or not has_test(problem.task):
        return
    begun, allowed = time.monotonic(), _allowed(store, record, problem, executor) if capped else math.inf
    record = _dense_on_test(store, record, problem)
    jobs = [_test_job(row) for row in _spread(store.front(record)) if _lacks_test(record, row)]
    for done, finished in enumerate(all_of(executor, jobs, problem.study.launch.max_retries)):
        if finished.outcome.state is not State.COMPLETE:
            raise LaunchError(
                f"Trial {finished.job.number} of the front was not measured on the test data: "
                f"{finished.outcome.reason}. The search is complete; run the same command to measure it again, if "
                "need be with a larger [launch] time_limit."
            )
        store.amend(record, finished.job.number, finished.outcome.measurements)
        report(len(jobs) - done - 1)
        if time.monotonic() - begun > allowed:
            return  # what has been handed out ends with the executor


def why_untested(front: Front, problem: Problem) -> str:
    """What was not measured on the test data, and why, in words; empty if all was, or nothing was to be."""
    settings = problem.study.study
    left = [row for row in front if not on_test(row.measurements)]
    if not left or settings.test == "none":
        return ""
    if problem.task.signal_samples() is not None:
        return ""
    if not has_test(problem.task):
        if problem.task.keeps_statistics():
            return "There is no real data to test on: all that is reported was measured without any, by the search."
        return "The task has no test data: nothing is reported but the selection data, which the search has seen."
    why = (
        "as [study] test says"
        if settings.test == "asked"
        else f"which would take longer than [study] test_share = {settings.test_share:g} of the search"
    )
    return (
        f"{len(left)} of {len(front)} members of the front are not measured on the test data, {why}; "
        "rank-search run STUDY.toml --test measures them."
    )


def why_optimistic(record: StudyRecord) -> str:
    """That the selection data look like some that the dense model was trained on, in words; empty if they do not.

    They do where its error rate on them is less than half of that on the test data, and below it by more than twice
    what both may be off by chance (95 %, the test data taken as no fewer than the selection data).
    """
    for name in record.objective_names:
        selection, test = (_error_rate(record, name, record.dense.get(each)) for each in (name, f"test_{name}"))
        if selection is None or test is None or record.examples is None:
            continue
        chance = half_width(selection, record.examples) + half_width(test, record.examples)
        if selection < test / 2 and test - selection > 2 * chance:
            return (
                f"The dense model's {name} is {record.dense[name]:.4g} on the selection data and "
                f"{record.dense[f'test_{name}']:.4g} on the test data: it has probably been trained on the selection "
                "data. What was measured on them is too good, a bound on it means less than it says, and mild cuts "
                "could not be told apart; give selection data that the model has not seen."
            )
    return ""


def _error_rate(record: StudyRecord, name: str, value: float | None) -> float | None:
    if value is None or not is_rate(name) or not 0 <= value <= 1:
        return None
    return value if record.objective(name).direction == "minimize" else 1 - value


def _allowed(store: Store, record: StudyRecord, problem: Problem, executor: Executor) -> float:
    """Seconds: a share of what the trials took on as many workers; a minute at least."""
    spent = sum((row.finished - row.started).total_seconds() for row in store.trials(record))
    return max(_LEAST_SECONDS, problem.study.study.test_share * spent / max(1, executor.workers))


def _dense_on_test(store: Store, study: StudyRecord, problem: Problem) -> StudyRecord:
    """Measure the dense model on the test data, if no driver has done so: after the search, which never sees it."""
    study = store.study(study.name)
    if on_test(study.dense):
        return study
    return store.amend_dense(study, test_measurements(problem.task, problem.original))


def _lacks_test(study: StudyRecord, row: TrialRow) -> bool:
    return bool(on_test(study.dense).keys() - row.measurements)


def _spread(front: Front) -> list[TrialRow]:
    """The knee, and then members from all over the front: what the time allows says most about the whole."""
    knee = [front.knee()] if front else []
    others = sorted(enumerate(front), key=lambda each: f"{each[0]:b}"[::-1])
    return [*knee, *(row for _, row in others if row not in knee)]


def _test_job(row: TrialRow) -> Job:
    found = next((each for each in row.artifacts if each.kind == "model"), None)
    if found is None:
        raise ArtifactError(f"The model of trial {row.number}, a member of the front, is not kept. Run `check`.")
    return Job(row.number, row.model_point, row.rng_seed, row.budget, trained=found)

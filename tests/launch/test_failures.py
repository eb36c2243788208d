"""Trial after trial that fails ends a search, with the last reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rank_search.errors import TrialsFailedError
from rank_search.launch import InProcess, Job, SearchDriver
from rank_search.launch.failures import Failures
from rank_search.point import Outcome, State
from rank_search.store import Store, StudyRecord
from tests.launch.parts import by_number, complete

FAILED = Outcome(State.FAILED, reason="RuntimeError: no gradient.")


def test_only_failures_in_a_row_count() -> None:
    failures = Failures(3)
    for outcome in (FAILED, FAILED, Outcome(State.DIVERGED), FAILED, FAILED, Outcome(State.COMPLETE), FAILED, FAILED):
        failures.note(0, outcome)
    with pytest.raises(TrialsFailedError, match=r"3 trials in a row.*trial 8: RuntimeError: no gradient\. Fix that"):
        failures.note(8, FAILED)


def test_a_limit_of_zero_allows_any_number_of_failures() -> None:
    failures = Failures(0)
    for number in range(100):
        failures.note(number, FAILED)


def test_a_driver_stops_after_too_many_failures_and_leaves_nothing_in_flight(
    store: Store, study: StudyRecord, drive: Callable[..., SearchDriver]
) -> None:
    def one_that_works(job: Job) -> Outcome:
        return complete(error=0.5, macs=1.0) if job.number == 1 else FAILED

    with pytest.raises(TrialsFailedError, match="4 trials in a row"):
        drive(InProcess(one_that_works), target=50, max_failures=4).run()
    states = [row.state for row in by_number(store, study)]
    assert states == [State.FAILED, State.COMPLETE, *[State.FAILED] * 4]
    assert all(not claim.worker for claim in store.claims(study))

"""A worker is killed in a trial: the trial is tried again, so often and no more, and nothing else is lost."""

from __future__ import annotations

import pytest

from rank_search.point import State
from tests.faults.conftest import Launch, MakeCase

pytestmark = pytest.mark.faults


def test_a_trial_whose_worker_is_killed_is_tried_again(new_case: MakeCase, launch: Launch) -> None:
    case = new_case(launch)
    run = case.start()
    before = case.wait_for_trials(3)
    for _ in range(2):
        case.kill_worker(run)
    case.assert_ends(run)
    rows = case.assert_sound(before=before)
    assert sum(row.attempt - 1 for row in rows) == 2
    assert not [row for row in rows if row.state is State.FAILED]


def test_a_trial_that_may_not_be_tried_again_has_failed(new_case: MakeCase, launch: Launch) -> None:
    case = new_case({**launch, "max_retries": 0})
    run = case.start()
    before = case.wait_for_trials(3)
    case.kill_worker(run)
    case.assert_ends(run)
    rows = case.assert_sound(before=before)
    (failed,) = [row for row in rows if row.state is State.FAILED]
    assert "died" in failed.reason
    assert {row.attempt for row in rows} == {1}

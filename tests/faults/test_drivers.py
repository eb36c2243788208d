"""A driver is killed: the same command goes on, and so do the other drivers of its study."""

from __future__ import annotations

import os
import signal

import pytest

from rank_search.point import State
from tests.faults.case import Case, in_flight, wait_for
from tests.faults.conftest import Launch, MakeCase
from tests.faults.nodes import Node
from tests.story.forks import Run

pytestmark = pytest.mark.faults

MANY = 24


def test_the_same_command_goes_on(new_case: MakeCase, launch: Launch) -> None:
    """Ended from outside, as a batch system does it, then killed."""
    case = new_case(launch)
    run = case.start()
    before = case.wait_for_trials(3)
    os.kill(run.pid, signal.SIGTERM)
    case.assert_ends(run, code=130)
    assert "Traceback" not in run.printed
    given_up = case.claims()
    assert {(claim.worker, claim.attempt) for claim in given_up} == {("", 0)}, "for whoever comes next"

    run = case.start()
    before = case.wait_for_trials(len(before) + 3)
    case.kill(run)
    before, lost = case.rows(), in_flight(case.claims())
    assert lost
    case.finish()
    rows = case.assert_sound(before=before)
    assert in_flight(given_up) <= {(row.number, row.point.key) for row in rows}
    again = {(row.number, row.point.key) for row in rows if row.attempt > 1 and row.state is not State.FAILED}
    assert again == lost, "a try that was given up is none"


def test_several_drivers_share_a_study_and_one_is_killed(new_case: MakeCase, head: Node) -> None:
    case = new_case({}, study={"trials": MANY})
    on_ray = case.start("--on", "ray", "--address", head.address, "--workers", 2)
    wait_for(lambda: bool(case.training(apart_from=[on_ray.pid])))
    doomed, other = case.start(), case.start()
    wait_for(lambda: all(has_trained(case, run) for run in (doomed, other)))
    wait_for(lambda: doomed.pid in case.training())
    case.kill(doomed)
    for run in (on_ray, other):
        case.assert_ends(run)
    rows = case.assert_sound(MANY)
    ran = [int(row.worker.rpartition(":")[2]) for row in rows]
    assert {doomed.pid, other.pid} < set(ran), "all have worked"
    assert len(set(ran) - {doomed.pid, other.pid, on_ray.pid}) == 2, "both actors, too"
    assert not [row for row in rows if row.state is State.FAILED]
    assert [row for row in rows if row.attempt > 1], "one was taken over"


def has_trained(case: Case, run: Run) -> bool:
    return any(row.worker.endswith(f":{run.pid}") and row.state is State.COMPLETE for row in case.rows())

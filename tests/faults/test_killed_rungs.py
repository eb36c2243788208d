"""Early stopping, and workers and drivers that are killed: promoted trials go on from their checkpoints."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from itertools import groupby
from typing import Final

import pytest

from rank_search.point import State
from rank_search.store import Claim
from tests.faults.case import Case, wait_for
from tests.faults.conftest import Launch, MakeCase
from tests.story.forks import Run

pytestmark = pytest.mark.faults

BATCHES: Final = {1.0: 2, 3.0: 6, 9.0: 18}
"""How many a trial has trained on when it reaches a budget: two an epoch."""
STEPS: Final = {2, 6 - 2, 18 - 6}


def test_promoted_trials_go_on_from_their_checkpoints(new_case: MakeCase, launch: Launch) -> None:
    case = new_case(
        launch,
        study={"trials": 14},
        task={"options": {"pause": 0.25}},
        search={"rungs": {"first": 1}, "constraints": []},
        training={"epochs": 9},
    )
    run = case.start()
    wait_for(lambda: bool(promoted(case)))
    wait_for(lambda: tried_again(run) or kill_all(case, run))
    wait_for(lambda: bool(promoted(case)) and bool(case.training(apart_from=[run.pid])))
    case.kill(run)
    before = [row for row in case.rows() if row.state is not State.STOPPED]
    lost = promoted(case)
    last = case.finish()
    rows = case.assert_sound(14, before)
    again = {(row.number, row.point.key, row.budget) for row in rows if row.attempt > 1}
    further = {(row.number, row.point.key, budget) for row in rows for budget in row.earlier}
    assert {(claim.number, claim.point.key, claim.budget) for claim in lost} <= again | further
    assert not [row for row in rows if row.state is State.FAILED]
    far = [row for row in rows if row.budget == 9.0 and row.earlier]
    assert far
    assert {tuple(row.earlier) for row in far} == {(1.0, 3.0)}
    assert steps(case, [run, last]) == STEPS, "nothing was trained twice"


def promoted(case: Case) -> list[Claim]:
    return [claim for claim in case.claims() if claim.budget > 1]


def kill_all(case: Case, run: Run) -> bool:
    """Kill the workers that train, if any do by now; the driver has still to see it."""
    for pid in case.training(apart_from=[run.pid]):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return False


def tried_again(run: Run) -> bool:
    return "trial retried" in run.printed


def steps(case: Case, drivers: list[Run]) -> set[int]:
    """On how many batches the workers trained at a stretch, before they measured the model."""
    at_once = set()
    for pid, trace in case.trainers().items():
        if pid not in {run.pid for run in drivers}:
            stretches = [(line, len(list(lines))) for line, lines in groupby(trace)]
            at_once |= {count for line, count in stretches[: len(stretches) - (trace[-1] == "loss")] if line == "loss"}
    return at_once

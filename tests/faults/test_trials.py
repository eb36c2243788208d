"""Trials that hang, raise, return NaN, eat memory or die: each is recorded with its reason, and harms no other."""

from __future__ import annotations

import pytest

from rank_search.point import State
from rank_search.store import TrialRow
from tests.faults.conftest import Launch, MakeCase

pytestmark = pytest.mark.faults

COUNT = 18
LIMITS = {"time_limit": 20.0, "memory_per_trial": 0.5, "max_retries": 1, "max_failures": 0}
TROUBLES = ["hangs", "is stuck", "raises", "returns NaN", "eats memory", "doomed", "dies"]


def test_each_fails_for_its_reason_and_alone(new_case: MakeCase, launch: Launch) -> None:
    options = {"pause": 0.05, "troubles": TROUBLES}
    case = new_case(
        {**launch, **LIMITS},
        study={"trials": COUNT},
        task={"options": options},
        training={"epochs": 1},
    )
    case.finish()
    rows = case.assert_sound(COUNT)
    assert {path.stem for path in case.small.folder.glob("*.victim")} == set(TROUBLES)
    assert len(failed(rows, "it ran past time_limit = 20 s")) == 2
    assert len(failed(rows, "RuntimeError: the data's disk is gone")) == 1
    assert len(failed(rows, "MemoryError: ")) == 1
    doomed = failed(rows, "its worker ")
    assert doomed
    assert {row.attempt for row in doomed} == {2}
    assert len([row for row in rows if row.state is State.FAILED]) == 4 + len(doomed)
    assert [row.reason for row in rows if row.state is State.DIVERGED] != []
    died = [row for row in rows if row.state is State.COMPLETE and row.attempt == 2]
    assert len(died) == 1, "one died, and its second try succeeded"


def failed(rows: list[TrialRow], reason: str) -> list[TrialRow]:
    return [row for row in rows if row.state is State.FAILED and row.reason.startswith(reason)]

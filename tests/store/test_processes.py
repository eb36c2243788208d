"""Several processes at once, and processes that are killed: nothing is lost, repeated or half written."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rank_search.point import Execution, State
from rank_search.store import Store, StudyRecord
from tests.store.recorder import losses_of
from tests.store.store_tools import BEGIN, END, a_record, anybody_else, complete, finish, numbers, slow_front, stopped

ROOT = Path(__file__).parents[2]


def start(program: str, *arguments: str | float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"tests.store.{program}", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def finish_all(processes: list[subprocess.Popen[str]]) -> list[list[int]]:
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return [[int(line) for line in output.split()] for output in outputs]


def expected_front(store: Store, study: StudyRecord) -> list[int]:
    trials = sorted(store.trials(study), key=lambda row: row.id)
    losses = [list(row.losses.values()) for row in trials]
    return sorted(trials[place].number for place in slow_front(losses))


def test_processes_share_a_study_without_repeating_anything(store: Store, url: str) -> None:
    study = store.join(a_record("minimize", "minimize", "maximize"))
    overlapping = [(0, 60), (30, 90), (0, 90)]
    processes = [start("recorder", url, study.name, f"w{first}", first, last) for first, last in overlapping]
    given = [number for output in finish_all(processes) for number in output]
    trials = store.trials(study)
    assert sorted(given) == sorted(numbers(trials)) == list(range(90))
    assert len({row.point.key for row in trials}) == 90
    assert sorted(row.rng_seed for row in trials) == list(range(90))
    assert sorted(numbers(store.front(study))) == expected_front(store, study)
    assert store.claims(study) == []
    assert store.check(study) == []


def test_processes_may_make_a_store_at_once(new_url) -> None:
    url = new_url()
    code = "import sys; from rank_search.store import Store; Store.open(sys.argv[1], create=True).close(); print(1)"
    command = [sys.executable, "-c", code, url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert finish_all(processes) == [[1], [1], [1]]
    with Store.open(url) as store:
        assert store.studies() == []


def test_killed_processes_leave_whole_trials_and_claims_to_take_over(store: Store, url: str) -> None:
    study = store.join(a_record())
    finish_all([start("killed", url, study.name, 12)])
    trials, claims = store.trials(study), store.claims(study)
    assert len(trials) >= 12
    assert store.check(study) == []
    assert sorted([*numbers(trials), *(claim.number for claim in claims)]) == list(range(len(trials) + len(claims)))
    while (taken := store.take_over(study, "heir", anybody_else("heir"))) is not None:
        claim, _ = taken
        rank = int(claim.point.layers["conv"].values["rank_out"])
        outcome = complete(a=losses_of(rank, "a"), b=losses_of(rank, "b"))
        store.record(study, claim, outcome, Execution(rank, BEGIN, END))
    assert sorted(numbers(store.trials(study))) == list(range(len(trials) + len(claims)))
    assert sorted(numbers(store.front(study))) == expected_front(store, study)
    assert store.check(study) == []


def test_a_stopped_trial_goes_on_in_one_process_only(store: Store, url: str) -> None:
    study = store.join(a_record())
    for _ in range(40):
        finish(store, study, stopped(a=20, b=20), budget=1.0)
    given = finish_all([start("promoter", url, study.name, f"w{which}") for which in range(3)])
    assert sorted(number for output in given for number in output) == list(range(40))
    trials = store.trials(study)
    assert {(row.state, row.budget) for row in trials} == {(State.COMPLETE, 2.0)}
    assert all(row.earlier == {1.0: {"a": 20.0, "b": 20.0}} for row in trials)
    assert sorted(numbers(store.front(study))) == expected_front(store, study)
    assert store.check(study) == []


@pytest.mark.parametrize("step", ["_insert_trial", "_replace", "_insert_measurements", "_judge"])
def test_a_process_killed_at_any_step_of_replacing_has_replaced_nothing(store: Store, url: str, step: str) -> None:
    study = store.join(a_record())
    row = finish(store, study, stopped(a=20, b=20), budget=1.0)
    victim = start("dying", url, study.name, step)
    victim.communicate(timeout=60)
    assert victim.returncode == -signal.SIGKILL
    (claim,) = store.claims(study)
    assert (claim.number, claim.budget) == (row.number, 2.0)
    assert store.trials(study) == [row]
    assert store.check(study) == []


@pytest.mark.parametrize("step", ["_insert_choices", "_insert_measurements", "_judge", "_set_dominated"])
def test_a_process_killed_at_any_step_of_recording_has_recorded_nothing(store: Store, url: str, step: str) -> None:
    study = store.join(a_record())
    victim = start("dying", url, study.name, step)
    victim.communicate(timeout=60)
    assert victim.returncode == -signal.SIGKILL
    (claim,) = store.claims(study)
    assert numbers(store.trials(study)) == list(range(claim.number))
    assert store.check(study) == []

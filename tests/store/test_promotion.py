"""Trials that were stopped at a rung, and go on."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from rank_search.errors import StoreError
from rank_search.point import Artifact, Execution, Outcome, State
from rank_search.store import Claim, Store, StudyRecord, TrialRow
from tests.store.store_tools import (
    BEGIN,
    END,
    a_point,
    a_record,
    anybody_else,
    complete,
    finish,
    go_on,
    numbers,
    record,
    slow_front,
    stopped,
)

CHECKPOINT = Artifact("checkpoint", "c", "00", 1)
MODEL = Artifact("model", "m", "11", 2)


@pytest.fixture
def rungs(store: Store) -> StudyRecord:
    """A study of trials of 9 epochs."""
    return store.join(a_record(budget=9.0))


def a_stopped(store: Store, study: StudyRecord, budget: float = 1.0, **measured: float) -> TrialRow:
    outcome = Outcome(State.STOPPED, measured or {"a": 5.0, "b": 5.0}, artifacts=(CHECKPOINT,))
    return finish(store, study, outcome, budget=budget)


# ---- claims ----------------------------------------------------------------------------------------------------


def test_a_claim_has_the_budget_that_was_asked_for_or_the_full_one(store: Store, rungs: StudyRecord) -> None:
    some = store.claim(rungs, a_point(), "w", budget=1.0)
    whole = store.claim(rungs, a_point(), "w")
    assert some is not None
    assert whole is not None
    assert [each.budget for each in (some, whole, *store.claims(rungs))] == [1.0, 9.0, 1.0, 9.0]
    taken, _ = store.take_over(rungs, "v", anybody_else("v"))
    assert (taken.number, taken.budget) == (0, 1.0)


def test_a_stopped_trial_is_claimed_again_as_it_was(store: Store, rungs: StudyRecord) -> None:
    row = a_stopped(store, rungs)
    before = datetime.now(UTC)
    claim = store.promote(rungs, row.number, "w", 3.0)
    assert claim == Claim(row.number, row.point, "w", 1, claim.started, {"label": "x"}, budget=3.0)
    assert before <= claim.started == claim.heartbeat
    assert store.claims(rungs) == [claim]
    assert store.trial(rungs, row.number) == row
    assert store.next_number(rungs) == row.number + 1
    assert store.check(rungs) == []


def test_finished_failed_and_unknown_trials_are_not_promoted(store: Store, rungs: StudyRecord) -> None:
    row = a_stopped(store, rungs, budget=3.0)
    for outcome in (complete(a=1, b=1), *(Outcome(state) for state in (State.FAILED, State.DIVERGED))):
        other = finish(store, rungs, outcome, budget=3.0)
        assert store.promote(rungs, other.number, "w", 9.0) is None
    assert store.promote(rungs, row.number, "w", 3.0) is None
    assert store.promote(rungs, row.number, "w", 1.0) is None
    assert store.promote(rungs, 99, "w", 9.0) is None
    assert store.promote(rungs, row.number, "w", 9.0) is not None
    assert store.promote(rungs, row.number, "v", 9.0) is None


def test_a_promotion_is_taken_over_like_any_claim(store: Store, rungs: StudyRecord) -> None:
    row = a_stopped(store, rungs)
    claim = store.promote(rungs, row.number, "w", 9.0)
    assert claim is not None
    store.release(rungs, [claim])
    taken, _ = store.take_over(rungs, "v")
    assert (taken.number, taken.budget, taken.attempt) == (row.number, 9.0, 1)
    assert record(store, rungs, taken, complete(a=1, b=1)).worker == "v"


# ---- rows ------------------------------------------------------------------------------------------------------


def test_a_promoted_trial_takes_the_place_of_its_row(store: Store, url: str, rungs: StudyRecord) -> None:
    first = a_stopped(store, rungs, a=5, b=5)
    other = finish(store, rungs, stopped(a=4, b=4), budget=1.0)
    second = go_on(store, rungs, first.number, Outcome(State.STOPPED, {"a": 4.0, "b": 4.5}), budget=3.0)
    third = go_on(store, rungs, first.number, Outcome(State.COMPLETE, {"a": 3.0, "b": 4.0}, "", (MODEL,)), budget=9.0)
    assert first.id < other.id < second.id < third.id
    assert (third.number, third.state, third.budget) == (first.number, State.COMPLETE, 9.0)
    assert third.measurements == {"a": 3.0, "b": 4.0}
    assert third.earlier == {1.0: {"a": 5.0, "b": 5.0}, 3.0: {"a": 4.0, "b": 4.5}}
    assert (third.artifacts, third.worker, third.point, third.sampler) == (
        (MODEL,),
        "promoter",
        first.point,
        first.sampler,
    )
    assert store.trials(rungs) == [other, third]
    assert store.trials(rungs, after=other.id) == [third]
    assert [*store.front(rungs)] == [third]
    assert store.claims(rungs) == []
    assert store.check(rungs) == []
    assert _rows_of(url, first.id) == 0


def _rows_of(url: str, trial_id: int) -> int:
    """How many rows of any table still belong to this id."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        count = sum(
            connection.scalar(text(f"SELECT count(*) FROM {table} WHERE trial_id = :id"), {"id": trial_id})
            for table in ("rs_choice", "rs_measurement", "rs_artifact")
        )
    engine.dispose()
    return count


def test_the_newest_row_s_id_is_not_given_again(store: Store, rungs: StudyRecord) -> None:
    row = a_stopped(store, rungs)
    rows = [go_on(store, rungs, row.number, stopped(a=1, b=1), budget=budget) for budget in (2.0, 3.0, 4.0)]
    ids = [each.id for each in (row, *rows)]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("state", [State.FAILED, State.DIVERGED, State.INFEASIBLE])
def test_a_promoted_trial_may_end_otherwise(store: Store, rungs: StudyRecord, state: State) -> None:
    row = a_stopped(store, rungs, a=5, b=5)
    ended = go_on(store, rungs, row.number, Outcome(state, reason="so"), budget=9.0)
    assert (ended.state, ended.budget, ended.reason, ended.measurements) == (state, 9.0, "so", {})
    assert ended.earlier == {1.0: {"a": 5.0, "b": 5.0}}
    assert ended.artifacts == ()
    assert store.promote(rungs, row.number, "w", 27.0) is None
    assert store.check(rungs) == []


def test_recording_twice_changes_nothing(store: Store, rungs: StudyRecord) -> None:
    claim = store.claim(rungs, a_point(), "w", budget=1.0)
    assert claim is not None
    row = record(store, rungs, claim, stopped(a=5, b=5))
    assert record(store, rungs, claim, stopped(a=6, b=6)) == row
    again = store.promote(rungs, row.number, "w", 9.0)
    assert again is not None
    assert record(store, rungs, claim, stopped(a=6, b=6)) == row  # late, while it goes on
    assert store.claims(rungs) == [again]
    promoted = record(store, rungs, again, complete(a=1, b=1))
    assert record(store, rungs, again, complete(a=0, b=0)) == promoted
    assert record(store, rungs, claim, stopped(a=6, b=6)) == promoted
    assert store.trials(rungs) == [promoted]
    assert store.check(rungs) == []


def test_a_stopped_trial_has_every_objective(store: Store, rungs: StudyRecord) -> None:
    with pytest.raises(StoreError, match="a stopped trial has a finite number for every objective"):
        finish(store, rungs, stopped(a=1.0), budget=1.0)


def test_where_a_trial_ran_is_kept(store: Store, study: StudyRecord) -> None:
    claim = store.claim(study, a_point(), "driver")
    assert claim is not None
    store.record(study, claim, complete(a=1, b=1), Execution(0, BEGIN, END, "node 3"))
    assert store.trial(study, 0).worker == "node 3"


def test_later_measurements_belong_to_the_full_budget(store: Store, rungs: StudyRecord) -> None:
    row = a_stopped(store, rungs, a=5, b=5)
    go_on(store, rungs, row.number, complete(a=1, b=1), budget=9.0)
    amended = store.amend(rungs, row.number, {"test_error": 0.5})
    assert amended.measurements == {"a": 1.0, "b": 1.0, "test_error": 0.5}
    assert amended.earlier == {1.0: {"a": 5.0, "b": 5.0}}


def test_a_checkpoint_may_be_dropped(store: Store, rungs: StudyRecord) -> None:
    row = a_stopped(store, rungs)
    assert store.forget_artifacts(rungs, row.number) == (CHECKPOINT,)
    assert store.trial(rungs, row.number).artifacts == ()


# ---- the front -------------------------------------------------------------------------------------------------

levels = st.sampled_from([-1.0, 0.0, 1.0, 3.0])
steps = st.tuples(st.integers(0, 5), levels, levels)


@settings(max_examples=25, deadline=None)
@given(st.lists(steps, min_size=1, max_size=14))
def test_the_front_is_that_of_the_full_budget_at_every_moment(
    store: Store, history: list[tuple[int, float, float]]
) -> None:
    """Each step brings one of six trials a rung further, of two: 1 and 9 epochs."""
    study, full, seen = store.join(a_record(budget=9.0)), {}, {}
    for which, a, b in history:
        if which in full:
            continue
        if which not in seen:
            seen[which] = finish(store, study, stopped(a=a, b=b), budget=1.0).number
            continue
        number = go_on(store, study, seen[which], complete(a=a, b=b), budget=9.0).number
        full[which] = (number, (a, b))
        recorded = list(full.values())
        expected = sorted(recorded[place][0] for place in slow_front([losses for _, losses in recorded]))
        assert sorted(numbers(store.front(study))) == expected
        assert sorted(numbers(store.front(study, as_of=number))) == expected
    _assert_past(store, study, list(full.values()))
    assert store.check(study) == []


def _assert_past(store: Store, study: StudyRecord, recorded: list[tuple[int, tuple[float, float]]]) -> None:
    for moment, (number, _) in enumerate(recorded):
        places = slow_front([losses for _, losses in recorded[: moment + 1]])
        expected = sorted(recorded[place][0] for place in places)
        assert sorted(numbers(store.front(study, as_of=number))) == expected

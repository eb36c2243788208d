"""Several results of one training: each a row of its own, judged against the front, recorded together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import update

from rank_search.errors import StoreError
from rank_search.point import Artifact, Choice, Cut, Execution, Outcome, Point, State
from rank_search.store import Store, StudyRecord, tables
from tests.store.store_tools import BEGIN, END, a_point, complete, finish, go_on, numbers, record, stopped

COSTS = {"conv": {"params": 3.0, "macs": 5.0}}


def cut(a: float, b: float, rank: int | None = None, **changes: object) -> Cut:
    outcome = Outcome(State.COMPLETE, {"a": a, "b": b}, artifacts=(Artifact("model", f"of {a} {b}", "00", 7),))
    return Cut(a_point(rank), replace(outcome, **changes), COSTS)  # type: ignore[arg-type]


def with_row(*cuts: Cut, a: float = 5, b: float = 5) -> Outcome:
    return replace(complete(a=a, b=b), row=cuts)


def test_each_cut_is_a_row_with_the_next_number(store: Store, study: StudyRecord) -> None:
    first = finish(store, study, complete(a=9, b=9))
    cuts = (cut(6, 4), cut(7, 3))
    trained = finish(store, study, with_row(*cuts))
    after = finish(store, study, complete(a=8, b=8))
    rows = store.trials(study)
    assert [row.number for row in rows] == [0, 1, 2, 3, 4]
    assert [row.cut_of for row in rows] == [None, None, 1, 1, None]
    assert (first.number, trained.number, after.number) == (0, 1, 4)
    for row, own in zip(rows[2:4], cuts, strict=True):
        assert row.point == own.point
        assert row.measurements == own.outcome.measurements
        assert row.artifacts == own.outcome.artifacts
        assert row.layer_costs == COSTS
        assert row.sampler["label"] == "cut of trial 1"
        assert (row.rng_seed, row.worker, row.attempt, row.budget) == (7, "worker", 1, 2.0)
        assert (row.started, row.finished) == (END, END), "the seconds are those of the training"
    assert store.claims(study) == []
    assert store.check(study) == []


def test_cuts_are_members_of_the_front(store: Store, study: StudyRecord) -> None:
    finish(store, study, with_row(cut(6, 4), cut(7, 6), cut(4, 4), a=5, b=5))
    front = store.front(study)
    assert numbers(front) == [3], "it dominates the trial, and both other cuts"
    assert [row.dominated_by for row in store.trials(study)] == [3, 3, 0, None]
    assert numbers(store.front(study, as_of=1)) == [0, 1]
    assert [row.number for row in store.front(study, where=["conv.rank_in = 3", "a < 4.5"])] == [3]


def test_a_point_that_is_there_or_in_flight_is_left_out(store: Store, study: StudyRecord) -> None:
    finish(store, study, complete(a=9, b=9), point=a_point(500))
    assert store.claim(study, a_point(501), "elsewhere", budget=2.0) is not None
    row = finish(store, study, with_row(cut(6, 4, 500), cut(7, 3, 501), cut(8, 2, 502), cut(9, 1, 502)))
    cuts = [each for each in store.trials(study) if each.cut_of is not None]
    assert [(each.number, each.cut_of, each.point) for each in cuts] == [(3, row.number, a_point(502))]
    assert store.check(study) == []


def test_cuts_are_no_trials_that_are_asked_for(store: Store, study: StudyRecord) -> None:
    finish(store, study, with_row(cut(6, 4), cut(7, 3)))
    assert (store.begun(study), store.next_number(study)) == (1, 3)
    claim = store.claim(study, a_point(), "worker", below=2)
    assert claim is not None
    assert claim.number == 3
    assert store.begun(study) == 2
    assert store.claim(study, a_point(), "worker", below=2) is None


def test_activity_counts_trainings(store: Store, study: StudyRecord) -> None:
    finish(store, study, with_row(cut(6, 4), cut(7, 3, state=State.INFEASIBLE, reason="too much")))
    finish(store, study, Outcome(State.FAILED))
    found = store.activity(study, BEGIN)
    assert found.trials == {State.COMPLETE: 1, State.FAILED: 1}
    assert (found.finished, found.by_worker, found.cuts) == (2, {"worker": 2}, 2)
    (summary,) = [each for each in store.studies() if each.name == study.name]
    assert summary.trials == {State.COMPLETE: 1, State.FAILED: 1}


def test_a_cut_that_breaks_a_constraint_is_no_member(store: Store, study: StudyRecord) -> None:
    finish(store, study, with_row(cut(1, 1, state=State.INFEASIBLE, reason="too much")))
    assert numbers(store.front(study)) == [0]
    row = store.trial(study, 1)
    assert (row.state, row.reason, row.cut_of) == (State.INFEASIBLE, "too much", 0)


def test_all_or_none_is_recorded(store: Store, study: StudyRecord) -> None:
    claim = store.claim(study, a_point(), "worker", budget=2.0)
    assert claim is not None
    broken = Cut(a_point(), Outcome(State.COMPLETE, {"a": 1.0}))
    with pytest.raises(StoreError, match="'b'"):
        record(store, study, claim, with_row(cut(6, 4), broken))
    assert store.trials(study) == []
    assert store.claims(study) == [claim]


def test_recorded_twice_there_is_one_row(store: Store, study: StudyRecord) -> None:
    claim = store.claim(study, a_point(), "worker", budget=2.0)
    assert claim is not None
    outcome, ran = with_row(cut(6, 4)), Execution(7, BEGIN, END)
    assert store.record(study, claim, outcome, ran)
    assert store.record(study, claim, outcome, ran)
    assert not store.record(study, replace(claim, attempt=2), outcome, ran)
    assert [row.cut_of for row in store.trials(study)] == [None, 0]


def test_a_promoted_trial_has_its_row_at_the_end(store: Store, study: StudyRecord) -> None:
    row = finish(store, study, stopped(a=5, b=5), budget=1.0)
    go_on(store, study, row.number, with_row(cut(6, 4)))
    assert [(each.number, each.cut_of) for each in store.trials(study)] == [(0, None), (1, 0)]


def test_what_a_cut_settled_at_is_its_model(store: Store, study: StudyRecord) -> None:
    became = Point({"conv": Choice("tucker2", {"rank_out": 2, "rank_in": 3}), "fc": Choice()}, {"orthogonality": 0.5})
    finish(store, study, with_row(cut(6, 4, settled=became)))
    row = store.trial(study, 1)
    assert row.model_point == became
    assert row.point != became
    assert store.check(study) == []


def test_files_of_a_cut_can_be_forgotten(store: Store, study: StudyRecord) -> None:
    finish(store, study, with_row(cut(6, 6), cut(6, 4)))
    (forgotten,) = store.forget_artifacts(study, 1)
    assert forgotten.location == "of 6 6"
    with pytest.raises(StoreError, match="on the front"):
        store.forget_artifacts(study, 2)


def test_a_cut_of_nothing_is_a_problem(store: Store, study: StudyRecord) -> None:
    finish(store, study, with_row(cut(6, 4)))

    def lose(connection):  # type: ignore[no-untyped-def]
        connection.execute(update(tables.trial).where(tables.trial.c.cut_of == 0).values(cut_of=9))

    store._database.write(lose)
    assert store.check(study) == ["Trial 1 is a cut of trial 9, which is not there."]

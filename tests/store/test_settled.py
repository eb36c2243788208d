"""Trials whose model has become smaller than what was asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select

from rank_search.point import Choice, Outcome, Point, State
from rank_search.store import Store, StudyRecord, TrialRow, tables
from tests.store.store_tools import a_point, a_record, complete, finish, go_on, numbers, record

COSTS = {"conv": {"params": 30.0, "macs": 400.0}}


def smaller(point: Point, rank_in: int = 2) -> Point:
    conv = point.layers["conv"]
    return Point(
        {**point.layers, "conv": Choice(conv.factorization, {**conv.values, "rank_in": rank_in})}, point.penalties
    )


def a_settled(store: Store, study: StudyRecord, **measured: float) -> TrialRow:
    asked = a_point()
    outcome = replace(complete(**(measured or {"a": 1, "b": 1})), settled=smaller(asked), settled_costs=COSTS)
    return finish(store, study, outcome, point=asked)


def choices(store: Store, row: TrialRow) -> set[tuple[str, str, float | None]]:
    query = select(tables.choice.c.layer, tables.choice.c.axis, tables.choice.c.value)
    with store._database._engine.connect() as connection:
        return {tuple(each) for each in connection.execute(query.where(tables.choice.c.trial_id == row.id))}


def test_a_trial_has_both_what_was_asked_and_what_it_has_become(store: Store, study: StudyRecord) -> None:
    row = a_settled(store, study)
    assert row.settled == row.model_point == smaller(row.point) != row.point
    assert row.settled_costs == COSTS
    assert row.chosen["conv.rank_in"] == 2
    assert {axis: value for layer, axis, value in choices(store, row) if layer == "conv"}["rank_in"] == 2
    assert store.check(study) == []


def test_a_trial_that_has_not_settled_is_what_was_asked(store: Store, study: StudyRecord) -> None:
    row = finish(store, study, complete(a=1, b=1))
    assert (row.settled, row.settled_costs, row.model_point) == (None, {}, row.point)
    with store._database._engine.connect() as connection:
        unsettled = select(tables.trial.c.id).where(tables.trial.c.settled.is_(None), tables.trial.c.id == row.id)
        assert connection.scalar(unsettled) == row.id


def test_what_was_asked_is_tried_once_and_what_it_became_may_be_asked(store: Store, study: StudyRecord) -> None:
    row = a_settled(store, study)
    assert store.claim(study, row.point, "w") is None
    assert store.claim(study, row.model_point, "w") is not None


def test_conditions_are_about_what_a_trial_has_become(store: Store, study: StudyRecord) -> None:
    row = a_settled(store, study)
    assert numbers(store.front(study, where=["conv.rank_in <= 2"])) == [row.number]
    assert numbers(store.front(study, where=["conv.rank_in >= 3"])) == []


def test_costs_of_layers_are_those_of_what_a_trial_has_become(store: Store, study: StudyRecord) -> None:
    asked, kept = a_point(), {"conv": {"params": 90, "macs": 900}, "fc": {"params": 7, "macs": 7}}
    claim = store.claim(study, asked, "w", {"layer_costs": kept})
    assert claim is not None
    row = a_settled(store, study)
    assert row.layer_costs == {}  # from before costs were kept
    outcome = replace(complete(a=1, b=1), settled=smaller(asked), settled_costs=COSTS)
    assert record(store, study, claim, outcome).layer_costs == {"conv": COSTS["conv"], "fc": kept["fc"]}


@pytest.mark.parametrize("again", [True, False])
def test_a_trial_that_goes_on_may_settle_elsewhere(store: Store, again: bool) -> None:
    study, asked = store.join(a_record(budget=9.0)), a_point()
    first = Outcome(State.STOPPED, {"a": 5.0, "b": 5.0}, settled=smaller(asked, 1), settled_costs=COSTS)
    stopped = finish(store, study, first, point=asked, budget=1.0)
    assert stopped.chosen["conv.rank_in"] == 1
    became = smaller(asked, 2) if again else None
    row = go_on(store, study, stopped.number, replace(complete(a=1, b=1), settled=became), budget=9.0)
    assert row.settled == became
    assert dict(row.earlier) == {1.0: {"a": 5.0, "b": 5.0}}
    expected = 2 if again else asked.layers["conv"].values["rank_in"]
    assert {axis: value for layer, axis, value in choices(store, row) if layer == "conv"}["rank_in"] == expected
    assert store.check(study) == []

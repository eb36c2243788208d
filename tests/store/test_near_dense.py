"""The knee is looked for near the dense model; a study without a front says so; names stand for studies."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rank_search.errors import QueryError
from rank_search.point import Objective, Outcome, State
from rank_search.store import EXAMPLES, Front, Store, StudyRecord
from rank_search.store.precision import error_bar, half_width
from tests.store.store_tools import BEGIN, a_record, complete, finish

OBJECTIVES = (Objective("error"), Objective("macs"))
# Reaches chance: scaled by the whole front, the member of error .3 is the knee.
CHANCE = [(0.08, 100.0), (0.09, 60.0), (0.1, 52.0), (0.3, 10.0), (0.9, 4.0)]


def _record(**changes: object) -> StudyRecord:
    fields = {
        "objectives": OBJECTIVES,
        "dense": {"error": 0.08, "macs": 100.0},
        "reference_point": {"error": 0.18, "macs": 100.0},
        "ideal": {"error": 0.0, "macs": 0.0},
    }
    return a_record(**{**fields, **changes})


def _front(store: Store, record: StudyRecord, table: list[tuple[float, float]]) -> Front:
    study = store.join(record)
    for error, macs in table:
        finish(store, study, complete(error=error, macs=macs))
    return store.front(study)


def test_the_knee_is_near_the_dense_model(store: Store) -> None:
    front = _front(store, _record(), CHANCE)
    assert front.knee().measurements["error"] == 0.09
    assert front.knee(tolerance=100).measurements["error"] == 0.3
    assert [row.number for row in front.near_dense()] == [0, 1, 2]
    said = front.knee_in_words()
    assert said.startswith("Trial 1 is the knee of the 3 of 5 members with error at most 0.1133")
    assert "33% of the way from the dense model" in said


def test_a_maximized_objective_has_its_limit_below(store: Store) -> None:
    objectives = (Objective("accuracy", "maximize"), Objective("macs"))
    record = _record(
        objectives=objectives,
        dense={"accuracy": 0.9, "macs": 100.0},
        reference_point={"accuracy": -0.6, "macs": 100.0},
        ideal={"accuracy": -1.0, "macs": 0.0},
    )
    study = store.join(record)
    for accuracy, macs in ((0.9, 90.0), (0.82, 50.0), (0.5, 5.0)):
        finish(store, study, complete(accuracy=accuracy, macs=macs))
    front = store.front(study)
    assert [row.number for row in front.near_dense()] == [0, 1]
    assert "accuracy at least 0.8" in front.knee_in_words()


def test_the_knee_is_one_of_all_members_where_none_is_near_dense(store: Store) -> None:
    front = _front(store, _record(), CHANCE[3:])
    assert front.near_dense() == ()
    assert front.knee() in front
    assert "all 2 members (none has error at most" in front.knee_in_words()
    with pytest.raises(QueryError, match="it is a share"):
        front.knee(-1)


def test_a_study_without_a_complete_trial_says_that_it_has_no_front(store: Store) -> None:
    study = store.join(_record())
    assert "no finished trial yet" in study.without_front({})
    finish(store, study, Outcome(State.INFEASIBLE, {"macs": 1.0}, "too large"))
    assert store.front(study) == ()
    assert store.front(study, objectives=["macs"]) == ()
    said = study.without_front(store.activity(study, study.created).trials)
    assert "No trial of study" in said
    assert "(1 infeasible)" in said


def test_a_name_stands_for_a_study(store: Store) -> None:
    front = _front(store, _record(), CHANCE)
    name = front.study.name
    assert store.front(name) == front
    assert store.trials(name) == store.trials(front.study)
    assert store.trial(name, 1) == store.trial(front.study, 1)
    assert store.claims(name) == []
    assert store.next_number(name) == 5
    assert store.activity(name, BEGIN).trials == {State.COMPLETE: 5}
    assert store.check(name) == []
    assert store.amend(name, 1, {"extra": 1.0}).measurements["extra"] == 1.0
    for ask in (store.front, store.trials, store.claims, store.check):
        with pytest.raises(QueryError, match="has no study 'nobody'"):
            ask("nobody")


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(1, 400))
def test_half_width_is_that_of_the_wilson_interval(wrong: int, examples: int) -> None:
    from scipy.stats import binomtest

    share = min(wrong, examples) / examples
    interval = binomtest(min(wrong, examples), examples).proportion_ci(0.95, method="wilson")
    assert half_width(share, examples) == pytest.approx((interval.high - interval.low) / 2, abs=1e-9)


def test_only_shares_of_the_selection_examples_have_error_bars() -> None:
    assert half_width(0.04, 1000) == pytest.approx(0.012, abs=3e-4)
    assert error_bar("macs", 0.5, 1000) is None
    assert error_bar("test_error", 0.5, 1000) is None
    assert error_bar("error", 1.5, 1000) is None
    study = _record(space={EXAMPLES: 1000})
    assert set(study.error_bars({"error": 0.04, "macs": 0.5, "loss": 0.3})) == {"error"}
    assert _record().error_bars({"error": 0.04}) == {}
    with pytest.raises(ValueError, match="is no share: it is from 0 to 1"):
        half_width(2.0, 3)

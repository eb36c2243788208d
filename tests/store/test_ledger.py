from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from rank_search.errors import QueryError, StoreError
from rank_search.point import Artifact, Choice, Execution, Outcome, Point, State
from rank_search.store import Store, StudyRecord
from tests.store.store_tools import (
    BEGIN,
    END,
    a_point,
    a_record,
    beats,
    complete,
    fill,
    finish,
    numbers,
    slow_front,
)

# ---- what is recorded ------------------------------------------------------------------------------------


def test_a_trial_comes_back_as_it_was_recorded(store: Store) -> None:
    study = store.join(a_record("minimize", "maximize"))
    point = a_point()
    files = (
        Artifact("weights", "0/weights.safetensors", "ab" * 32, 3_000_000_000),
        Artifact("coded", "0/c", "cd", 1),
    )
    claim = store.claim(study, point, "host:1", {"label": "seed"})
    assert claim is not None
    outcome = Outcome(State.COMPLETE, {"a": 1.0, "b": 2.5, "latency": 0.1 + 0.2}, "fine\0 \ud800", files)
    store.record(study, claim, outcome, Execution(2**62, BEGIN, END))
    row = store.trial(study, claim.number)
    assert (row.number, row.state, row.point, row.sampler) == (0, State.COMPLETE, point, {"label": "seed"})
    assert row.measurements == outcome.measurements
    assert row.losses == {"a": 1.0, "b": -2.5}
    assert (row.budget, row.rng_seed, row.worker, row.attempt) == (2.0, 2**62, "host:1", 1)
    assert (row.started, row.finished) == (BEGIN, END)
    assert row.reason == "fine\\0 \\ud800"
    assert row.dominated_by is None
    assert set(row.artifacts) == set(files)
    assert store.trial(study, 0) == row == store.trials(study)[0]
    assert store.claims(study) == []


def test_measurements_from_numpy_are_stored_as_numbers(store: Store, study: StudyRecord) -> None:
    row = finish(store, study, complete(a=np.float32(0.1), b=np.int64(3)))
    assert row.measurements == {"a": float(np.float32(0.1)), "b": 3.0}


def test_a_point_without_layers_or_axes_is_recorded(store: Store, study: StudyRecord) -> None:
    for point in (Point({}), Point({"fc": Choice("whole")}), Point({"fc": Choice()})):
        assert finish(store, study, complete(a=1, b=1), point=point).point == point
    assert store.check(study) == []


@pytest.mark.parametrize("worst", [math.nan, math.inf, -math.inf])
def test_measurements_that_are_not_finite_are_left_out(store: Store, study: StudyRecord, worst: float) -> None:
    row = finish(store, study, Outcome(State.DIVERGED, {"a": worst, "size": 3.0}, "loss is NaN"))
    assert (row.measurements, row.losses, row.reason) == ({"size": 3.0}, {}, "loss is NaN")


@pytest.mark.parametrize("measured", [{"a": 1.0}, {"a": 1.0, "b": math.nan}, {"a": math.inf, "b": 1.0}, {}])
def test_a_complete_trial_has_every_objective(store: Store, study: StudyRecord, measured: dict[str, float]) -> None:
    with pytest.raises(StoreError, match=r"a complete trial has a finite number for every objective"):
        finish(store, study, Outcome(State.COMPLETE, measured))
    assert store.trials(study) == []
    assert len(store.claims(study)) == 1  # it may still be recorded as something else


@pytest.mark.parametrize("state", [State.INFEASIBLE, State.DIVERGED, State.FAILED])
def test_only_complete_trials_enter_the_front(store: Store, study: StudyRecord, state: State) -> None:
    finish(store, study, Outcome(state, {"a": 0.0, "b": 0.0}))
    worse = finish(store, study, complete(a=1, b=1))
    assert [*store.front(study)] == [worse]
    assert store.check(study) == []


def test_only_trials_at_full_budget_enter_the_front(store: Store, study: StudyRecord) -> None:
    finish(store, study, complete(a=0, b=0), budget=1.0)
    worse = finish(store, study, complete(a=1, b=1), budget=study.budget)
    assert [*store.front(study)] == [worse]
    assert store.check(study) == []


def test_two_artifacts_at_one_place_are_refused_and_nothing_is_written(store: Store, study: StudyRecord) -> None:
    twice = (Artifact("weights", "w", "00", 1),) * 2
    with pytest.raises(StoreError, match="could not be written"):
        finish(store, study, Outcome(State.COMPLETE, {"a": 1, "b": 1}, artifacts=twice))
    assert store.trials(study) == []


# ---- the front, now and ever -------------------------------------------------------------------------------

levels = st.sampled_from([-1.0, 0.0, 0.25, 1.0, 3.0])


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[str], list[list[float]]]:
    ways = draw(st.lists(st.sampled_from(["minimize", "maximize"]), min_size=1, max_size=4))
    rows = st.lists(levels, min_size=len(ways), max_size=len(ways))
    return ways, draw(st.lists(rows, min_size=1, max_size=12))


@settings(max_examples=20, deadline=None)
@given(histories())
def test_the_front_is_the_slow_front_at_every_moment(
    store: Store, history: tuple[list[str], list[list[float]]]
) -> None:
    ways, table = history
    study = store.join(a_record(*ways))
    rows = fill(store, study, table)
    signs = [-1 if way == "maximize" else 1 for way in ways]
    losses = [[sign * value for sign, value in zip(signs, row, strict=True)] for row in table]
    for moment in range(len(table)):
        expected = slow_front(losses[: moment + 1])
        assert sorted(numbers(store.front(study, as_of=moment))) == expected
        assert sorted(numbers(store.front(study, as_of=moment, objectives=study.objective_names))) == expected
    assert sorted(numbers(store.front(study))) == expected
    assert store.check(study) == []
    for row, again in zip(rows, store.trials(study), strict=True):
        assert again.dominated_by == _first_dominator(losses, row.number)


def _first_dominator(losses: list[list[float]], number: int) -> int | None:
    """By definition: the first member of the front that it met, or else the first later one to beat it."""
    met = [place for place in slow_front(losses[:number]) if beats(losses[place], losses[number])]
    later = [place for place in range(number + 1, len(losses)) if beats(losses[place], losses[number])]
    return min(met or later, default=None)


def test_two_stores_that_take_turns_judge_alike(store: Store, url: str) -> None:
    """Each remembers the losses that it has read, and reads those of trials that the other one has recorded."""
    study = store.join(a_record())
    table = [[5, 5], [4, 6], [3, 3], [3, 3], [6, 1], [2, 4], [1, 1], [0, 9]]
    with Store.open(url) as other:
        for place, row in enumerate(table):
            fill((store, other)[place % 2], study, [row])
            assert sorted(numbers(store.front(study))) == slow_front(table[: place + 1])
    assert store.check(study) == []


def test_equal_trials_share_the_front(store: Store, study: StudyRecord) -> None:
    fill(store, study, [[1, 1], [1, 1], [2, 1]])
    assert numbers(store.front(study)) == [0, 1]
    assert store.trial(study, 2).dominated_by == 0


def test_the_front_follows_the_order_of_recording_not_of_asking(store: Store, study: StudyRecord) -> None:
    first, second = (store.claim(study, a_point(), "w") for _ in range(2))
    assert first is not None
    assert second is not None
    store.record(study, second, complete(a=2, b=2), Execution(0, BEGIN, END))
    store.record(study, first, complete(a=1, b=1), Execution(0, BEGIN, END))
    assert store.trial(study, second.number).id < store.trial(study, first.number).id
    assert store.trial(study, second.number).dominated_by == first.number
    assert numbers(store.front(study, as_of=second.number)) == [second.number]
    assert numbers(store.front(study, as_of=first.number)) == [first.number]
    assert numbers(store.trials(study, after=store.trial(study, second.number).id)) == [first.number]
    assert store.trials(study, after=store.trial(study, first.number).id) == []


# ---- what comes later ----------------------------------------------------------------------------------------


def test_later_measurements_are_added_once(store: Store, study: StudyRecord) -> None:
    finish(store, study, complete(a=1, b=1))
    row = store.amend(study, 0, {"test_error": 0.5, "a": 1.0, "bad": math.nan})
    assert row.measurements == {"a": 1.0, "b": 1.0, "test_error": 0.5}
    assert store.amend(study, 0, {"test_error": 0.5}) == row


def test_a_measurement_is_never_overwritten(store: Store, study: StudyRecord) -> None:
    row = finish(store, study, complete(a=1, b=1))
    with pytest.raises(StoreError, match=r"Trial 0 .* already has a = 1\.0; .* by 2\.0"):
        store.amend(study, 0, {"new": 5.0, "a": 2.0})
    assert store.trial(study, 0) == row


def test_files_of_a_dominated_trial_may_be_dropped(store: Store, study: StudyRecord) -> None:
    file = Artifact("weights", "0/w", "00", 1)
    finish(store, study, Outcome(State.COMPLETE, {"a": 2, "b": 2}, artifacts=(file,)))
    with pytest.raises(StoreError, match=r"Trial 0 .* is on the front"):
        store.forget_artifacts(study, 0)
    finish(store, study, complete(a=1, b=1))
    assert store.forget_artifacts(study, 0) == (file,)
    assert store.forget_artifacts(study, 0) == ()
    assert store.trial(study, 0).artifacts == ()


def test_locations_are_asked_for_within_a_study(store: Store, study: StudyRecord) -> None:
    other = store.join(a_record())
    for record, names in ((study, ("one", "two")), (other, ("three",))):
        for name in names:
            files = (Artifact("model", name, "00", 1), Artifact("coded", name, "00", 1))
            finish(store, record, Outcome(State.COMPLETE, {"a": 1, "b": 1}, artifacts=files))
    assert store.kept_among(study, ["two", "one", "three", "nowhere"]) == {"one", "two"}
    assert store.kept_among(other, ["one", "three"]) == {"three"}
    assert store.kept_among(study, []) == set()


def test_a_trial_that_is_not_there_has_nothing_to_change(store: Store, study: StudyRecord) -> None:
    with pytest.raises(QueryError, match="no trial 5: none has finished yet"):
        store.amend(study, 5, {"x": 1.0})
    with pytest.raises(QueryError, match="no trial 5"):
        store.forget_artifacts(study, 5)


# ---- plain SQL -----------------------------------------------------------------------------------------------


def ask(store: Store, url: str, sql: str, **values: object) -> list[tuple[object, ...]]:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text(sql), values)]
    engine.dispose()
    return rows


def test_the_view_shows_every_measurement_of_every_member(store: Store, url: str) -> None:
    study = store.join(a_record("minimize", "maximize"))
    fill(store, study, [[1, 1], [2, 2], [3, 1]])
    finish(store, study, complete(a=0, b=9), budget=0.5)
    finish(store, study, Outcome(State.FAILED, {"a": 0.0, "b": 9.0}))
    store.amend(study, 1, {"size": 7.0})
    sql = "SELECT trial, measurement, value, direction FROM pareto_front WHERE study = :name ORDER BY 1, 2"
    assert ask(store, url, sql, name=study.name) == [
        (0, "a", 1.0, "minimize"),
        (0, "b", 1.0, "maximize"),
        (1, "a", 2.0, "minimize"),
        (1, "b", 2.0, "maximize"),
        (1, "size", 7.0, None),
    ]


def test_each_choice_of_a_trial_is_a_row(store: Store, url: str, study: StudyRecord) -> None:
    row = finish(store, study, complete(a=1, b=1), point=a_point(11))
    sql = "SELECT layer, factorization, axis, value FROM rs_choice WHERE trial_id = :id ORDER BY layer, axis"
    assert ask(store, url, sql, id=row.id) == [
        ("conv", "tucker2", "rank_in", 3.0),
        ("conv", "tucker2", "rank_out", 11.0),
        ("fc", "dense", "", None),
    ]


def test_a_record_from_elsewhere_with_the_same_number_is_refused(store: Store, study: StudyRecord) -> None:
    claim = store.claim(study, a_point(), "w")
    assert claim is not None
    stranger = replace(study, id=10**6)
    with pytest.raises(StoreError, match="not in this store"):
        store.record(stranger, claim, complete(a=1, b=1), Execution(0, BEGIN, END))

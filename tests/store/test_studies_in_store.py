from __future__ import annotations

import math
import threading
from dataclasses import replace

import pytest

from rank_search.errors import QueryError, StoreError, StudyMismatchError
from rank_search.point import Outcome, State
from rank_search.store import PriorRow, Store, StudyRecord
from tests.store.store_tools import a_point, a_record, complete, finish


def test_a_study_comes_back_as_it_was_joined(store: Store) -> None:
    priors = (
        PriorRow("conv", "tucker2", "rank_in", 3, 16, 1e-3, 0.75, 5.5),
        PriorRow("conv", "tucker2", "rank_out", 4, 32),
    )
    wanted = a_record("minimize", "maximize", priors=priors)
    joined = store.join(wanted)
    assert joined == replace(wanted, id=joined.id, created=joined.created)
    assert joined.id > 0
    assert joined.created.tzinfo is not None
    assert store.study(wanted.name) == joined
    assert store.join(wanted) == joined


def test_measurements_of_the_dense_model_are_added_and_never_overwritten(store: Store) -> None:
    joined = store.join(replace(a_record(), dense={"a": 1.0}))
    amended = store.amend_dense(joined, {"test_a": 2.0, "bad": math.nan})
    assert amended == replace(joined, dense={"a": 1.0, "test_a": 2.0})
    assert store.amend_dense(joined, {"a": 5.0, "test_a": 5.0}) == store.study(joined.name) == amended


def test_the_stored_space_wins_when_a_study_goes_on(store: Store) -> None:
    joined = store.join(a_record())
    assert store.join(replace(joined, space={"other": 1})).space == joined.space


def test_a_study_made_from_something_else_is_refused_naming_each_part(store: Store) -> None:
    joined = store.join(a_record(fingerprint={"weights": "00aa", "svd": "1.0", "gone": "x"}))
    other = replace(joined, fingerprint={"weights": "f" * 64, "svd": "1.0", "cp": "2.0"})
    with pytest.raises(StudyMismatchError) as caught:
        store.join(other)
    message = str(caught.value)
    assert joined.name in message
    assert "weights is 00aa in the store, ffffffffffff… now" in message
    assert "gone is x in the store, nothing now" in message
    assert "cp is nothing in the store, 2.0 now" in message
    assert "svd" not in message


def test_measurements_of_the_dense_model_that_are_not_finite_are_left_out(store: Store) -> None:
    joined = store.join(a_record(dense={"a": math.nan, "b": 2.0}))
    assert joined.dense == {"b": 2.0}
    assert store.study(joined.name) == joined


def test_many_may_join_at_once(store: Store) -> None:
    wanted, ids = a_record(), []
    threads = [threading.Thread(target=lambda: ids.append(store.join(wanted).id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_an_unknown_study_is_an_error_that_names_the_nearest(store: Store) -> None:
    store.join(a_record(name="digits of the sun"))
    with pytest.raises(QueryError, match=r"no study 'digits of the son'; did you mean 'digits of the sun'\?"):
        store.study("digits of the son")


@pytest.mark.parametrize(
    "name", ["Robert'); DROP TABLE rs_study;--", "<script>alert(1)</script>", "Größe “数字” 🙂", ""]
)
def test_names_are_only_names(store: Store, name: str) -> None:
    joined = store.join(a_record(name=name, objectives=a_record().objectives))
    row = finish(store, joined, Outcome(State.COMPLETE, {"a": 1, "b": 1, name + "x": 3.0}, reason=name))
    assert row.measurements[name + "x"] == 3.0
    assert row.reason == name
    assert [*store.front(store.study(name), sort=name + "x")] == [row]
    assert store.check(joined) == []


def test_the_summary_counts(store: Store) -> None:
    study = store.join(a_record())
    finish(store, study, complete(a=1, b=1))
    finish(store, study, complete(a=2, b=2))
    finish(store, study, Outcome(State.DIVERGED, reason="NaN"))
    assert store.claim(study, a_point(), "w") is not None
    summary = next(each for each in store.studies() if each.name == study.name)
    assert summary.trials == {State.COMPLETE: 2, State.DIVERGED: 1}
    assert (summary.in_flight, summary.on_front) == (1, 1)
    assert (summary.objectives, summary.created) == (study.objectives, study.created)


def test_a_study_of_another_store_is_refused(store: Store) -> None:
    stranger = a_record()
    with pytest.raises(StoreError, match="not in this store"):
        store.claim(stranger, a_point(), "w")


def test_studies_do_not_see_each_other(store: Store, study: StudyRecord) -> None:
    other, point = store.join(a_record()), a_point()
    finish(store, study, complete(a=1, b=1), point=point)
    row = finish(store, other, complete(a=2, b=2), point=point)
    assert row.number == 0
    assert [*store.front(other)] == [row]

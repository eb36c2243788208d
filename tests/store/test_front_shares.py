"""What a study's trials are worth within its reference box."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rank_search.errors import QueryError
from rank_search.pareto import ReferenceBox
from rank_search.point import Cut, Objective
from rank_search.store import Store, box_of, convergence_of, hypervolume_of, panels_of, takes_part
from tests.store.store_tools import a_point, a_record, complete, finish, stopped

TABLE = [(9.0, 9.0), (1.0, 5.0), (5.0, 1.0), (2.0, 2.0)]


def test_the_box_of_a_study_ends_at_its_reference_or_at_what_is_tolerated() -> None:
    study = a_record("minimize", "minimize", objectives=(Objective("error"), Objective("macs")))
    corners = {"ideal": {"error": 0.0, "macs": 0.0}, "reference_point": {"error": 0.4, "macs": 9.0}}
    study = a_record(objectives=study.objectives, dense={"error": 0.1, "macs": 9.0}, **corners)
    assert box_of(study) == ReferenceBox((0.0, 0.0), (0.4, 9.0))
    near = box_of(study, tolerance=1 / 3)
    assert near.ideal == (0.0, 0.0)
    assert near.reference == pytest.approx((0.2, 9.0))


def test_trials_that_stopped_or_failed_take_no_part_in_the_shares(store: Store) -> None:
    study = store.join(a_record("minimize", "minimize"))
    for a, b in TABLE:
        finish(store, study, complete(a=a, b=b))
    finish(store, study, stopped(a=-9.0, b=-9.0), budget=1.0)
    rows = store.trials(study)
    assert [takes_part(study, row) for row in rows] == [True] * 4 + [False]
    box = ReferenceBox((-10.0, -10.0), (10.0, 10.0))
    found = convergence_of(study, rows, box_of(study))
    assert list(found.shares) == pytest.approx([box.hypervolume(TABLE[: min(count, 4)]) for count in range(1, 6)])
    assert found.members == 3
    assert hypervolume_of(study, store.front(study)) == found.shares[-1]
    (panel,) = panels_of(study, rows, ["a", "b"])
    assert panel.front == (2, 3, 1)


def test_a_trial_counts_once_with_its_cuts(store: Store) -> None:
    study = store.join(a_record("minimize", "minimize"))
    for at in (0, 2):
        (a, b), (c, d) = TABLE[at : at + 2]
        finish(store, study, replace(complete(a=a, b=b), row=(Cut(a_point(), complete(a=c, b=d)),)))
    finish(store, study, stopped(a=-9.0, b=-9.0), budget=1.0)
    rows, box = store.trials(study), box_of(study)
    assert [row.cut_of for row in rows] == [None, 0, None, 2, None]
    found = convergence_of(study, rows, box)
    assert found.trials == (1, 2, 3)
    assert list(found.shares) == pytest.approx([box.hypervolume(TABLE[:count]) for count in (2, 4, 4)])


def test_a_study_whose_dense_model_was_not_measured_has_a_hypervolume_of_nothing_only() -> None:
    study = a_record(reference_point={}, ideal={})
    assert hypervolume_of(study, []) == 0.0
    with pytest.raises(KeyError):
        box_of(study)


def test_a_study_whose_box_is_empty_says_so() -> None:
    study = a_record("minimize", ideal={"a": 1.0}, reference_point={"a": 1.0})
    with pytest.raises(QueryError, match="is not worse than the ideal"):
        box_of(study)

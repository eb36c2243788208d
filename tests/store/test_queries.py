from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rank_search.errors import QueryError
from rank_search.point import Bound, Choice, Point
from rank_search.store import PriorRow, Store, StudyRecord, names
from tests.store.store_tools import a_point, a_record, complete, fill, finish, numbers

# a (minimized), b (maximized), size (no objective)
TABLE = [(1.0, 1.0, 30.0), (2.0, 4.0, 10.0), (3.0, 9.0, 20.0), (3.0, 3.0, 1.0)]


@pytest.fixture(scope="module")
def filled(store: Store) -> StudyRecord:
    study = store.join(a_record("minimize", "maximize"))
    for a, b, size in TABLE:
        finish(store, study, complete(a=a, b=b, size=size))
    store.amend(study, 1, {"test_error": 0.5})
    assert store.claim(study, a_point(), "w") is not None
    return study


def bounds(*texts: str) -> list[Bound]:
    return [Bound.parse(text) for text in texts]


def test_a_front_is_sorted_by_the_first_objective_best_first(store: Store, filled: StudyRecord) -> None:
    assert numbers(store.front(filled)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [("a", [0, 1, 2]), ("b", [2, 1, 0]), ("size", [1, 2, 0]), ("test_error", [1, 0, 2])],
)
def test_any_measurement_sorts_best_first_and_unmeasured_last(
    store: Store, filled: StudyRecord, sort: str, expected: list[int]
) -> None:
    assert numbers(store.front(filled, sort=sort)) == expected
    assert numbers(store.front(filled, sort=sort, limit=2)) == expected[:2]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a <= 2"], [0, 1]),
        (["a < 2"], [0]),
        (["a <= 2", "b >= 4"], [1]),
        (["a <= 0.5 * dense"], [0, 1]),  # dense: a = 4
        (["size < 0.2 * dense"], [1]),  # dense: size = 100
        (["test_error <= 1"], [1]),
        (["a < -5"], []),
    ],
)
def test_bounds_keep_members(store: Store, filled: StudyRecord, texts: list[str], expected: list[int]) -> None:
    assert numbers(store.front(filled, where=bounds(*texts))) == expected


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [(["a"], [0]), (["b"], [2]), (["size"], [3]), (["a", "size"], [0, 1, 3]), (["b", "a", "b"], [2, 1, 0])],
)
def test_a_front_can_be_recomputed_for_other_measurements(
    store: Store, filled: StudyRecord, objectives: list[str], expected: list[int]
) -> None:
    assert numbers(store.front(filled, objectives=objectives)) == expected


def test_trials_that_lack_a_measurement_are_not_on_its_front(store: Store, filled: StudyRecord) -> None:
    assert numbers(store.front(filled, objectives=["test_error"])) == [1]
    assert [*store.front(filled, objectives=["test_error"], as_of=0)] == []


def test_a_past_front_obeys_the_same_options(store: Store, filled: StudyRecord) -> None:
    assert numbers(store.front(filled, as_of=1, sort="b")) == [1, 0]
    assert numbers(store.front(filled, as_of=2, objectives=["size"])) == [1]
    assert numbers(store.front(filled, as_of=1, where=bounds("b > 1"), limit=1)) == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sort": "sise"}, r"no measurement 'sise'; did you mean 'size'\?"),
        ({"objectives": ["a", "c"]}, r"no measurement 'c'"),
        ({"where": bounds("tset_error <= 1")}, r"did you mean 'test_error'\?"),
        ({"where": bounds("test_error <= 0.5 * dense")}, r"has no 'test_error'.* There are: a, b, size\."),
        ({"objectives": []}, "No objective is given"),
        ({"limit": 0}, "limit is 0"),
        ({"as_of": 4}, "Trial 4 .* is still running"),
        ({"as_of": 77}, "no trial 77: there are 0 to 3"),
        ({"as_of": -1}, "no trial -1"),
        ({"sort": "a; DROP TABLE rs_trial"}, "no measurement"),
    ],
)
def test_a_question_that_cannot_be_answered(
    store: Store, filled: StudyRecord, options: dict[str, object], message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        store.front(filled, **options)


# ---- bounds on the choice for a layer --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def layered(store: Store) -> StudyRecord:
    """Four members of the front, with ranks 4, 8 and 16 of `features.0`, of two factorizations, and a dense one."""
    study = store.join(a_record(priors=(PriorRow("classifier", "svd", "rank", 2, 9),)))
    choices = [
        Choice("svd", {"rank": 4}),
        Choice("svd", {"rank": 8}),
        Choice("cp", {"rank": 16, "rank.of_it": 2.5}),
        Choice(),
    ]
    for place, choice in enumerate(choices):
        point = Point({"features.0": choice, "classifier": Choice()})
        finish(store, study, complete(a=place, b=-place), point=point)
    finish(store, study, complete(a=9, b=9), point=Point({"features.0": Choice("svd", {"rank": 5})}))
    return study


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["features.0.rank <= 8"], [0, 1]),
        (["features.0.rank > 8"], [2]),
        (["features.0.rank <= 99"], [0, 1, 2]),  # dense has no rank
        (["features.0.rank >= 8", "a < 2"], [1]),
        (["features.0.rank <= 8", "features.0.rank >= 5"], [1]),
        (["classifier.rank <= 99"], []),  # known from its prior, and chosen by nobody
    ],
)
def test_bounds_on_the_choice_for_a_layer(
    store: Store, layered: StudyRecord, texts: list[str], expected: list[int]
) -> None:
    assert numbers(store.front(layered, where=bounds(*texts))) == expected
    assert numbers(store.front(layered, where=bounds(*texts), as_of=4)) == expected


def test_a_measurement_of_the_same_name_wins(store: Store) -> None:
    study = store.join(a_record())
    for place in range(2):
        point = Point({"conv": Choice("svd", {"rank": 10 + place})})
        finish(store, study, complete(a=place, b=-place), point=point)
    assert numbers(store.front(study, where=bounds("conv.rank <= 10"))) == [0]
    store.amend(study, 0, {"conv.rank": 99.0})
    assert numbers(store.front(study, where=bounds("conv.rank <= 11"))) == [1]
    store.amend(study, 1, {"conv.rank": 50.0})
    assert numbers(store.front(study, where=bounds("conv.rank <= 11"))) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "features.1.rank <= 8",
            r"no measurement or axis of a layer 'features.1.rank'; did you mean 'features.0.rank'",
        ),
        (
            "features.0.rnk <= 8",
            r"did you mean 'features.0.rank'\? There are: a, b, classifier.rank, features.0.rank, ",
        ),
        ("rank <= 8", r"no measurement or axis of a layer 'rank'"),
        ("features.0.rank <= 0.5 * dense", r"has no 'features.0.rank'\. There are: a, b, size\."),
    ],
)
def test_an_unknown_layer_or_axis(store: Store, layered: StudyRecord, text: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        store.front(layered, where=bounds(text))


def test_axes_are_for_bounds_only(store: Store, layered: StudyRecord) -> None:
    for options in ({"sort": "features.0.rank"}, {"objectives": ["features.0.rank"]}):
        with pytest.raises(QueryError, match=r"no measurement 'features.0.rank'"):
            store.front(layered, **options)


def test_a_name_that_only_an_old_trial_has_is_known(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_LAST", names._LAST.limit(1))
    study = store.join(a_record())
    finish(store, study, complete(a=5, b=5, rare=1.0))
    fill(store, study, [[1, 1], [2, 2]])
    assert [*store.front(study, where=bounds("rare <= 1"))] == []
    assert numbers(store.front(study, objectives=["rare"])) == [0]
    with pytest.raises(QueryError, match=r"did you mean 'rare'\?"):
        store.front(study, where=bounds("raer <= 1"))


def test_a_trial_that_is_not_there(store: Store, filled: StudyRecord) -> None:
    with pytest.raises(QueryError, match="no trial 9: there are 0 to 3"):
        store.trial(filled, 9)
    with pytest.raises(QueryError, match="still running"):
        store.trial(filled, 4)


def test_an_empty_study_has_an_empty_front(store: Store, study: StudyRecord) -> None:
    assert [*store.front(study)] == []
    assert [*store.front(study, objectives=["a"], where=bounds("b <= 2 * dense"))] == []
    assert store.trials(study) == []
    assert store.check(study) == []


def test_a_front_may_be_larger_than_one_statement_can_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rank_search.store.rows._BATCH", 2)
    study = store.join(a_record())
    fill(store, study, [[1, 1]] * 5)
    assert numbers(store.front(study)) == [0, 1, 2, 3, 4]
    assert numbers(store.front(study, objectives=["b"])) == [0, 1, 2, 3, 4]
    fill(store, study, [[0, 0]])
    assert numbers(store.front(study)) == [5]


def test_asking_needs_neither_torch_nor_numpy_nor_alembic(tmp_path: Path) -> None:
    path = tmp_path / "quick.sqlite"
    with Store.open(path, create=True) as store:
        fill(store, store.join(a_record(name="quick")), [[1, 2], [2, 1]])
    code = (
        "import sys\n"
        "from rank_search.store import Store\n"
        f"with Store.open({str(path)!r}) as store:\n"
        "    assert len(store.front(store.study('quick'))) == 2\n"
        "heavy = {'torch', 'optuna', 'numpy', 'scipy', 'moocore', 'alembic', 'sqlalchemy.orm', 'pydantic'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""

"""Fronts as they are handed out: the members they choose, slices of them, and tables."""

from __future__ import annotations

import pickle

import pytest

from rank_search.errors import QueryError
from rank_search.store import Front, Store, StudyRecord, parse_wish
from tests.store.store_tools import a_record, complete, fill, finish

# a and b are minimized, c is maximized; the last is dominated
TABLE = [(0.0, 10.0), (1.0, 2.0), (5.0, 1.0), (10.0, 0.0), (9.0, 9.0)]


@pytest.fixture(scope="module")
def study(store: Store) -> StudyRecord:
    made = store.join(a_record("minimize", "minimize"))
    fill(store, made, TABLE)
    return made


@pytest.mark.parametrize("text", ["", "a", "a=", "a=x", "a=1,a=2", "a=nan", "a<=1", "a=1;b=2", "a=1,,b=2"])
def test_parse_wish_refuses_what_is_no_wish(text: str) -> None:
    with pytest.raises(QueryError, match="write NAME=NUMBER"):
        parse_wish(text)


def test_a_front_chooses_its_knee_the_closest_and_the_best_member(store: Store, study: StudyRecord) -> None:
    front = store.front(study)
    assert front.knee().number == 1
    assert front.closest("a=6").number == 2
    assert front.closest({"a": 0.1, "b": 11.0}).number == 0
    assert front.closest("a=2.4*dense").number == 3  # the dense model has a = 4
    assert front.best("b<=1.5").number == 2
    assert front.best("b<=1.5", "a<=7").number == 2
    assert front.best("a<=8").number == 2  # the first objective that no bound is about
    assert front.best().number == 0


def test_the_objectives_of_a_front_are_those_it_was_taken_of(store: Store, study: StudyRecord) -> None:
    front = store.front(study, objectives=["b"])
    assert [each.name for each in front.objectives] == ["b"]
    assert front.knee().number == 3


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda front: front.best("a<=-1"), r"No member of the front satisfies a <= -1 \(4 members\)"),
        (lambda front: front.best("latency<=1"), "satisfies latency <= 1"),
        (lambda front: front.best("speed<=0.5*dense"), "no measurement 'speed'"),
        (lambda front: front.closest("latency=1"), "no measurement 'latency'. There are: a, b"),
        (lambda front: front.closest("speed=0.5*dense"), "no measurement 'speed'"),
    ],
)
def test_a_choice_that_no_member_meets_is_refused(store: Store, study: StudyRecord, ask: object, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        ask(store.front(study))  # type: ignore[operator]


def test_no_member_is_chosen_from_an_empty_front(store: Store) -> None:
    front = store.front(store.join(a_record()))
    assert front == ()
    for ask in (front.knee, front.best, lambda: front.closest("a=1")):
        with pytest.raises(QueryError, match="has no members to choose from"):
            ask()


def test_a_front_is_a_tuple_that_pickles(store: Store, study: StudyRecord) -> None:
    front = store.front(study)
    again = pickle.loads(pickle.dumps(front))
    assert isinstance(again, Front)
    assert again == front == tuple(front)
    assert again.objectives == front.objectives


def test_a_slice_of_a_front_is_a_front(store: Store, study: StudyRecord) -> None:
    front = store.front(study)
    for part in (front[:3], front[::-1], front[5:]):
        assert isinstance(part, Front)
        assert (part.study, part.objectives) == (front.study, front.objectives)
    assert front[:3] == tuple(front)[:3]
    assert front[1:3].knee() is front[1]
    assert front[-1] is tuple(front)[-1]
    assert front[5:] == ()


def test_a_front_as_a_data_frame(store: Store, study: StudyRecord) -> None:
    frame = store.front(study).to_pandas()
    assert list(frame.index) == [0, 1, 2, 3]
    assert list(frame["b"]) == [10.0, 2.0, 1.0, 0.0]
    assert set(frame["conv"]) == {"tucker2"}
    assert list(frame["conv.rank_in"]) == [3] * 4
    assert store.front(study, limit=1)[0].to_pandas().shape[0] == 1
    assert store.front(store.join(a_record())).to_pandas().empty


def test_names_are_escaped_in_html(store: Store) -> None:
    odd = store.join(a_record(name="<script>alert('ä')</script>"))
    finish(store, odd, complete(a=1.0, b=2.0, **{"<b>": 3.0}))
    front = store.front(odd)
    for shown in (front._repr_html_(), front[0]._repr_html_(), odd._repr_html_()):
        assert "<script" not in shown
        assert "<b>" not in shown
        assert shown.startswith("<table>")
    assert "&lt;script&gt;" in front._repr_html_()

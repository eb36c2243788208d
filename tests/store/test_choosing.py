from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rank_search.errors import QueryError
from rank_search.pareto import nondominated
from rank_search.store import Front, Store, StudyRecord, parse_wish
from rank_search.store.choosing import closest, knee
from tests.store.store_tools import a_record, complete, fill, finish

# a and b are minimized, c is maximized; the last is dominated
TABLE = [(0.0, 10.0), (1.0, 2.0), (5.0, 1.0), (10.0, 0.0), (9.0, 9.0)]
losses = st.lists(st.lists(st.integers(0, 20).map(float), min_size=3, max_size=3), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def study(store: Store) -> StudyRecord:
    made = store.join(a_record("minimize", "minimize"))
    fill(store, made, TABLE)
    return made


@settings(deadline=None)
@given(losses)
def test_the_knee_is_farthest_below_the_plane_of_the_extremes(table: list[list[float]]) -> None:
    kept = [row for row, good in zip(table, nondominated(table), strict=True) if good]
    columns = list(zip(*kept, strict=True))
    spans = [(min(column), max(column)) for column in columns]

    def height(row: list[float]) -> float:
        """Signed distance to the plane Σx = 1, times √m."""
        return sum((value - low) / (high - low) for value, (low, high) in zip(row, spans, strict=True) if high > low)

    assert height(kept[knee(kept)]) == pytest.approx(min(map(height, kept)))


@settings(deadline=None)
@given(losses, st.lists(st.floats(0.5, 50), min_size=3, max_size=3), st.lists(st.floats(-9, 9), min_size=3, max_size=3))
def test_other_units_have_the_same_knee(table: list[list[float]], units: list[float], zeros: list[float]) -> None:
    changed = [[unit * value + zero for unit, value, zero in zip(units, row, zeros, strict=True)] for row in table]
    heights = [sum(row) for row in _scaled(table)]
    assert heights[knee(changed)] == pytest.approx(min(heights), abs=1e-6)


def _scaled(table: list[list[float]]) -> list[list[float]]:
    columns = list(zip(*table, strict=True))
    boxes = [(min(column), max(column) - min(column) or 1.0) for column in columns]
    return [[(value - low) / span for value, (low, span) in zip(row, boxes, strict=True)] for row in table]


@given(losses, st.data())
def test_a_member_is_closest_to_itself(table: list[list[float]], data: st.DataObject) -> None:
    rows = [dict(zip("abc", row, strict=True)) for row in table]
    wish = data.draw(st.sampled_from(rows))
    assert rows[closest(rows, wish)] == wish


@pytest.mark.parametrize("text", ["", "a", "a=", "a=x", "a=1,a=2", "a=nan", "a<=1", "a=1;b=2", "a=1,,b=2"])
def test_a_wish_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(QueryError, match="write NAME=NUMBER"):
        parse_wish(text)


def test_a_front_chooses(store: Store, study: StudyRecord) -> None:
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
        (lambda front: front.best("a<=-1"), "none has a <= -1"),
        (lambda front: front.best("latency<=1"), "none has latency <= 1"),
        (lambda front: front.best("speed<=0.5*dense"), "it has no 'speed'"),
        (lambda front: front.closest("latency=1"), "has no 'latency', only a, b"),
        (lambda front: front.closest("speed=0.5*dense"), "it has no 'speed'"),
    ],
)
def test_choosing_fails_with_the_reason(store: Store, study: StudyRecord, ask: object, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        ask(store.front(study))  # type: ignore[operator]


def test_nothing_is_chosen_from_nothing(store: Store) -> None:
    front = store.front(store.join(a_record()))
    assert front == ()
    for ask in (front.knee, front.best, lambda: front.closest("a=1")):
        with pytest.raises(QueryError):
            ask()


def test_a_front_is_a_tuple_that_pickles(store: Store, study: StudyRecord) -> None:
    front = store.front(study)
    again = pickle.loads(pickle.dumps(front))
    assert isinstance(again, Front)
    assert again == front == tuple(front)
    assert again.objectives == front.objectives


def test_a_front_as_a_data_frame(store: Store, study: StudyRecord) -> None:
    frame = store.front(study).to_pandas()
    assert list(frame.index) == [0, 1, 2, 3]
    assert list(frame["b"]) == [10.0, 2.0, 1.0, 0.0]
    assert set(frame["conv"]) == {"tucker2"}
    assert list(frame["conv.rank_in"]) == [3] * 4
    assert store.front(study, limit=1)[0].to_pandas().shape[0] == 1
    assert store.front(store.join(a_record())).to_pandas().empty


def test_strange_names_are_harmless_in_html(store: Store) -> None:
    odd = store.join(a_record(name="<script>alert('ä')</script>"))
    finish(store, odd, complete(a=1.0, b=2.0, **{"<b>": 3.0}))
    front = store.front(odd)
    for shown in (front._repr_html_(), front[0]._repr_html_(), odd._repr_html_()):
        assert "<script" not in shown
        assert "<b>" not in shown
        assert shown.startswith("<table>")
    assert "&lt;script&gt;" in front._repr_html_()

"""What is asked again and again is answered from an index, in a store of any size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import event

from rank_search.point import Artifact, Bound, Outcome, State
from rank_search.store import Store, StudyRecord
from tests.store.store_tools import BEGIN, a_point, a_record, anybody_else, complete, fill, finish, go_on, stopped

Act = Callable[[Store, StudyRecord], object]

FILES = (Artifact("model", "m", "00", 1),)
BOUNDS = [Bound.parse("conv.rank_out <= 8"), Bound.parse("a <= 9"), Bound.parse("size <= 9")]


def claimed_and_recorded(store: Store, study: StudyRecord) -> None:
    finish(store, study, Outcome(State.COMPLETE, {"a": 0.0, "b": 0.0, "size": 1.0}, artifacts=FILES))
    claim = store.claim(study, a_point(), "w")
    assert claim is not None
    store.heartbeat(study, [claim])
    store.release(study, [claim])
    store.take_over(study, "v", anybody_else("v"))


@pytest.mark.parametrize(
    "act",
    [
        claimed_and_recorded,
        lambda store, study: go_on(store, study, 2, complete(a=0, b=0)),
        lambda store, study: store.next_number(study),
        lambda store, study: store.trials(study, after=2),
        lambda store, study: store.trial(study, 1),
        lambda store, study: store.front(study),
        lambda store, study: store.front(study, where=BOUNDS),
        lambda store, study: store.front(study, as_of=1),
        lambda store, study: store.activity(study, BEGIN),
        lambda store, study: store.amend(study, 0, {"test_error": 1.0}),
        lambda store, study: store.forget_artifacts(study, 1),
        lambda store, study: store.kept_among(study, ["m"]),
    ],
)
def test_no_table_is_read_as_a_whole(act: Act, tmp_path: Path) -> None:
    """SQLite says so in the plan of every statement; nothing has been analyzed, as in any store."""
    with Store.open(tmp_path / "store.sqlite", create=True) as store:
        study = store.join(a_record())
        fill(store, study, [[1, 1], [2, 2]])
        finish(store, study, stopped(a=3, b=3), budget=1.0)
        plans = _plans(store, lambda: act(store, study))
    assert len(plans) > 1
    assert [(sql, step) for sql, step in plans if step.startswith("SCAN rs_")] == []


def _plans(store: Store, act: Callable[[], object]) -> list[tuple[str, str]]:
    """Every statement, and each step of its plan."""
    found: list[tuple[str, str]] = []

    def explain(_connection, cursor, sql: str, given, _context, many: bool) -> None:
        if sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
            asking = cursor.connection.cursor()
            steps = asking.execute(f"EXPLAIN QUERY PLAN {sql}", given[0] if many else given).fetchall()
            found.extend((sql, step[3]) for step in steps)

    engine = store._database._engine
    event.listen(engine, "before_cursor_execute", explain)
    act()
    event.remove(engine, "before_cursor_execute", explain)
    return found

"""TensorBoard's logs: a run for each trial at each budget, with its choices."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from rank_search.point import Choice, Point
from rank_search.store import Store
from tests.store.store_tools import BEGIN, END, a_record, complete, finish, go_on, stopped


def point(rank: int) -> Point:
    return Point({"conv": Choice("svd", {"rank": rank})}, {"entropy": 0.25})


def test_tensorboard_shows_each_trial_at_each_budget_with_its_choices(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorBoard's own imports
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        from rank_search.observe import TensorBoard

    folder = tmp_path / "logs"
    board = TensorBoard(folder)
    with Store.open(tmp_path / "store.sqlite", create=True) as store:
        study = store.join(a_record(budget=3.0))
        board.recorded(finish(store, study, complete(a=0.5, b=10), point=point(3), budget=3.0))
        board.recorded(finish(store, study, stopped(a=0.4, b=10), point=point(4), budget=1.0))
        board.recorded(go_on(store, study, 1, complete(a=0.2, b=10), budget=3.0))
    board.close()
    assert sorted(path.name for path in folder.iterdir()) == ["trial-00000", "trial-00001", "trial-00001-at-1"]
    shown = EventAccumulator(str(folder / "trial-00001"))
    shown.Reload()
    assert [(event.step, event.value) for event in shown.Scalars("ray/tune/a")] == [(3, pytest.approx(0.2))]
    seconds = (END - BEGIN).total_seconds()
    assert [event.value for event in shown.Scalars("ray/tune/seconds")] == [pytest.approx(seconds)]
    content = shown.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"conv.rank" in content
    assert b"svd" in content
    assert b"entropy" in content

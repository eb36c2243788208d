"""TensorBoard and Ray's metrics are told of every trial, and never stop a search."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rank_search.launch import Job, SearchDriver, TrialCallback
from rank_search.launch.executors import Finished
from rank_search.observe import SearchProgress
from rank_search.point import Choice, Outcome, Point, State


def finished(number: int, budget: float, error: float) -> Finished:
    job = Job(number, Point({"conv": Choice("svd", {"rank": 3 + number})}, {"entropy": 0.25}), 0, budget)
    now = datetime.now(UTC)
    outcome = Outcome(State.COMPLETE, {"error": error, "macs": 10.0})
    return Finished(job, outcome, now - timedelta(seconds=2), now, "host:1")


def test_tensorboard_shows_each_trial_at_each_budget_with_its_choices(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorBoard's own imports
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        from rank_search.launch import TensorBoard

    board = TensorBoard(tmp_path)
    for each, state in ((finished(0, 3.0, 0.5), State.COMPLETE), (finished(1, 1.0, 0.4), State.STOPPED)):
        board.recorded(each, replace(each.outcome, state=state))
    promoted = finished(1, 3.0, 0.2)
    board.recorded(promoted, promoted.outcome)
    board.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trial-00000", "trial-00001", "trial-00001-at-1"]
    shown = EventAccumulator(str(tmp_path / "trial-00001"))
    shown.Reload()
    assert [(event.step, event.value) for event in shown.Scalars("ray/tune/error")] == [(3, pytest.approx(0.2))]
    assert [event.value for event in shown.Scalars("ray/tune/seconds")] == [pytest.approx(2, abs=0.1)]
    content = shown.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"conv.rank" in content
    assert b"svd" in content
    assert b"entropy" in content


class Failing(TrialCallback):
    def __init__(self) -> None:
        self.told = 0

    def recorded(self, finished: Finished, outcome: Outcome) -> None:
        self.told += 1
        raise OSError("no room for logs")

    def progressed(self, progress: SearchProgress) -> None:
        return

    def close(self) -> None:
        raise AssertionError("it is told nothing more")


def test_a_watcher_that_fails_is_told_nothing_more_and_the_search_goes_on(drive: Callable[..., SearchDriver]) -> None:
    failing = Failing()
    assert drive(target=5, watchers=[failing]).run() is True
    assert failing.told == 1


def test_ray_metrics_take_every_state(cluster: object, drive: Callable[..., SearchDriver]) -> None:
    from rank_search.launch import RayMetrics

    told: list[SearchProgress] = []
    drive(target=3, report=told.append, watchers=[RayMetrics("study")]).run()
    assert told[-1].states == {State.COMPLETE: 3}

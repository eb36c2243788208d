"""Callbacks are told of every trial, and never stop a search."""

from __future__ import annotations

from collections.abc import Callable

from rank_search.launch import SearchDriver
from rank_search.observe import SearchProgress, TrialCallback
from rank_search.point import State
from rank_search.store import TrialRow


class Failing(TrialCallback):
    def __init__(self) -> None:
        self.told = 0

    def recorded(self, row: TrialRow) -> None:
        self.told += 1
        raise OSError("no room for logs")

    def progressed(self, progress: SearchProgress) -> None:
        return

    def close(self) -> None:
        raise AssertionError("it is told nothing more")


def test_a_callback_that_fails_is_told_nothing_more_and_the_search_goes_on(drive: Callable[..., SearchDriver]) -> None:
    failing = Failing()
    assert drive(target=5, callbacks=[failing]).run() is True
    assert failing.told == 1


def test_ray_metrics_take_every_state(cluster: object, drive: Callable[..., SearchDriver]) -> None:
    from rank_search.observe import RayMetrics

    told: list[SearchProgress] = []
    drive(target=3, report=told.append, callbacks=[RayMetrics("study")]).run()
    assert told[-1].states == {State.COMPLETE: 3}

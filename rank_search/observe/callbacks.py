"""Who is told of a search beside the store: a progress display, TensorBoard, Ray's dashboard."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final, final

from rank_search.observe.search_progress import Report, SearchProgress, UnbrokenReport
from rank_search.store import TrialRow

_log: Final = logging.getLogger(__name__)


class TrialCallback(ABC):
    """Told by the driver; what it does must not stop a search."""

    @abstractmethod
    def recorded(self, row: TrialRow) -> None:
        """A trial was recorded by this driver, be it at a rung."""

    @abstractmethod
    def progressed(self, progress: SearchProgress) -> None:
        """The search stands here now."""

    @abstractmethod
    def close(self) -> None:
        """The search has ended."""


@final
class Observers:
    """All whom a driver tells. A callback that fails is told nothing more, and the search goes on.

    Args:
        report: told after every trial how far the search is; see `UnbrokenReport`.
    """

    def __init__(self, report: Report = lambda progress: None, callbacks: Sequence[TrialCallback] = ()) -> None:
        self._report, self._callbacks = UnbrokenReport(report), tuple(callbacks)

    def recorded(self, row: TrialRow) -> None:
        self._tell(lambda callback: callback.recorded(row))

    def progressed(self, progress: SearchProgress) -> None:
        self._report(progress)
        self._tell(lambda callback: callback.progressed(progress))

    def close(self) -> None:
        self._tell(lambda callback: callback.close())

    def _tell(self, news: Callable[[TrialCallback], None]) -> None:
        for callback in self._callbacks:
            try:
                news(callback)
            except Exception as error:  # noqa: BLE001  a full disk of logs must not end a search
                _log.warning("%s shows nothing more: %s", type(callback).__name__, error)
                self._callbacks = tuple(each for each in self._callbacks if each is not callback)

"""Who is told of every trial beside the store: TensorBoard, and Ray's dashboard."""

from __future__ import annotations

from abc import ABC, abstractmethod

from rank_search.launch.executors import Finished
from rank_search.observe import SearchProgress
from rank_search.point import Outcome


class TrialCallback(ABC):
    """Told by the driver; what it does must not stop a search."""

    @abstractmethod
    def recorded(self, finished: Finished, outcome: Outcome) -> None:
        """A trial was recorded, be it at a rung, with this outcome."""

    @abstractmethod
    def progressed(self, progress: SearchProgress) -> None:
        """The search stands here now."""

    @abstractmethod
    def close(self) -> None:
        """The search has ended."""

"""What a worker is made of: how it comes from nothing to what runs its trials."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from rank_search.launch.executors import Runner

Loaded = TypeVar("Loaded")
Found = TypeVar("Found")


class WorkerRecipe(ABC, Generic[Loaded, Found]):
    """Three steps, each taken once by every worker. It is sent to them, so it can be pickled: a frozen record."""

    @abstractmethod
    def init(self) -> None:
        """What takes no look at the task yet."""

    @abstractmethod
    def load(self, place: int) -> Loaded:
        """The worker's own copy of what trials share, as far as the driver has nothing to add.

        Args:
            place: which one it is of the workers on a machine, from 0; a successor takes its predecessor's.
        """

    @abstractmethod
    def runner(self, loaded: Loaded, found: Found) -> Runner:
        """What runs trials, with what the driver has found meanwhile."""

"""Batches of one task in the hands of another, which looks at their inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import final

from rank_search.tasks.task import Batch


@dataclass(frozen=True)
class Lent:
    """A batch of another task."""

    batch: Batch


@final
@dataclass(frozen=True)
class Tested(Lent):
    """One of its test data, which it measures itself, too."""


@final
@dataclass(frozen=True)
class LentPass:
    """The passes over another task's batches."""

    begin: Callable[[], Iterable[Batch]]

    def __iter__(self) -> Iterator[Lent]:
        return map(Lent, self.begin())

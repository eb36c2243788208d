"""Recovery checkpoints: what a training leaves on its way, so that a trial whose process dies goes on from there.

The store knows nothing of them. A file's name says of which point it is, what it was made from and with (its mark), in
which try, and after how many epochs; and it has the content's digest, so that half a file is told from a whole one.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self, final

from rank_search.artifacts.artifact_store import STEM, ArtifactStore
from rank_search.errors import ArtifactError
from rank_search.point import Artifact

RECOVERY: Final = ".recovery"
"""How the names of recovery checkpoints end."""

_log: Final = logging.getLogger(__name__)


@final
@dataclass(frozen=True)
class Recovery:
    """A recovery checkpoint, as its name has it.

    Attributes:
        point: the beginning of the point's key.
        mark: stands for all that the training is made from and with.
        attempt: the try that left it.
        epochs: after how many.
    """

    name: str
    point: str
    mark: str
    attempt: int
    epochs: float

    @classmethod
    def named(cls, name: str) -> Self | None:
        """What the name says; None if it is no name of a recovery checkpoint.

        >>> Recovery.named("00ff-a1b2.c3d4.2.84.25.recovery").epochs
        84.25
        >>> Recovery.named("00ff-a1b2.checkpoint")
        """
        point, _, rest = name.removesuffix(RECOVERY).partition("-")
        parts = rest.split(".", 3)
        if not name.endswith(RECOVERY) or len(parts) != 4:
            return None
        try:
            return cls(name, point, parts[1], int(parts[2]), float(parts[3]))
        except ValueError:
            return None

    def is_of(self, key: str) -> bool:
        """Whether it is of the point with that key."""
        return self.point == key[:STEM]


@final
class Recoveries:
    """The recovery checkpoints of one trial.

    Args:
        key: of the trial's point.
        mark: the trial's own; what has another one is of no use to it.
        last: the name of the one that the trial goes on from.
    """

    def __init__(self, artifacts: ArtifactStore, key: str, mark: str, last: str = "") -> None:
        self._artifacts, self._key, self._mark, self._last = artifacts, key, mark, last

    def newest(self, budget: float) -> tuple[Recovery, Artifact] | None:
        """Of those up to a budget the one to go on from: the farthest that is whole and the trial's own. The others go.

        Raises:
            ArtifactError: what is there cannot be listed or read.
        """
        chosen = None
        for each in sorted(self._up_to(budget), key=lambda found: -found.epochs):
            may_be = chosen is None and each.mark == self._mark
            artifact = self._artifacts.known("recovery", each.name) if may_be else None
            if artifact is not None:
                chosen = each, artifact
                continue
            if chosen is None:
                _log.warning("%s is damaged, or of other code or settings: it is not gone on with.", each.name)
            self._artifacts.discard(each.name)
        return chosen

    def keep(self, data: bytes, attempt: int, epochs: float) -> None:
        """Write one; the one before goes when it is there.

        Raises:
            ArtifactError: it cannot be written; no half of it is left, and the one before stays.
        """
        suffix = f".{self._mark}.{attempt}.{epochs}{RECOVERY}"
        name = self._artifacts.write("recovery", self._key, suffix, data).location
        before, self._last = self._last, name
        if before not in ("", name):
            with suppress(ArtifactError):  # it goes with the trial
                self._artifacts.delete(before)

    def drop(self, budget: float) -> None:
        """Remove all of the point's up to a budget: they are needed no longer.

        Raises:
            ArtifactError: they cannot be listed or removed.
        """
        for each in self._up_to(budget):
            self._artifacts.discard(each.name)

    def _up_to(self, budget: float) -> list[Recovery]:
        """Of the point: what is beyond the budget is another driver's, which has promoted the trial meanwhile."""
        return [each for each in recoveries_of(self._artifacts, [self._key]) if each.epochs <= budget]


def recoveries_of(artifacts: ArtifactStore, keys: Collection[str]) -> list[Recovery]:
    """The recovery checkpoints of points, by name.

    Raises:
        ArtifactError: the files cannot be listed.
    """
    found = (Recovery.named(name) for name in artifacts.names())
    return [each for each in found if each is not None and any(map(each.is_of, keys))]

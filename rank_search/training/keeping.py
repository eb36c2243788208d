"""Checkpoints on the way of a training, so that it survives the death of its process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, final

import torch

from rank_search.basics import is_lack_of_memory
from rank_search.errors import ArtifactError
from rank_search.training.trainer import Trainer

_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True)
class Keep:
    """How a training keeps checkpoints on its way.

    Attributes:
        seconds: from the beginning to the first one, and from the end of one to the next.
        write: takes the bytes of one, and the epochs that are done.
    """

    seconds: float
    write: Callable[[bytes, float], None]


@final
class Keeping:
    """Writes a checkpoint after a step when it is time for one: an `AfterStep`.

    A training whose weights are not finite keeps none. One that cannot be written costs its time, and nothing else: the
    training goes on, and tries again when it is time for the next.

    Args:
        about: whose training it is.
        budget: the epochs that it trains to.
    """

    def __init__(self, keep: Keep, about: Mapping[str, Any], budget: float) -> None:
        self._keep, self._about, self._budget = keep, about, budget
        self._due = time.monotonic() + keep.seconds

    def __call__(self, training: Trainer) -> None:
        begun = time.monotonic()
        if begun < self._due:
            return
        epochs = min(training.epochs, self._budget)  # the last step of a budget may reach a little further
        try:
            if not training.broken():
                self._write(training, epochs, begun)
        except Exception as error:
            if not isinstance(error, ArtifactError) and not is_lack_of_memory(error):
                raise
            _log.warning("The training goes on without a checkpoint after %.4g epochs: %s", epochs, error)
        self._due = time.monotonic() + self._keep.seconds

    def _write(self, training: Trainer, epochs: float, begun: float) -> None:
        data = training.kept(**self._about, epochs=epochs).to_bytes()
        self._keep.write(data, epochs)
        seconds = time.monotonic() - begun
        _log.info("A checkpoint after %.4g epochs: %d bytes in %.3f s.", epochs, len(data), seconds)


def software() -> str:
    """What a training is carried out by, as far as its numbers depend on it: another version may round otherwise."""
    return f"rank-search {version('rank-search')}, torch {torch.__version__}"

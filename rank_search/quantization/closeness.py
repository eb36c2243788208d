"""Whether rounding does to the outputs what was predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn

from rank_search.errors import RankSearchError, TaskError
from rank_search.quantization.outputs import Distance, Feed, outputs_of
from rank_search.tasks import Batch

_COMPARED: Final = 2  # batches
_FAR: Final = 10.0  # times as far as predicted: errors that add up instead of spreading explain that much
_NEAR: Final = 1e-2  # relative squared error of the outputs that is never worth a doubt


@dataclass(frozen=True)
class Closeness:
    """The outputs of a network on the first batches, to compare rounded copies with.

    Attributes:
        noise: how far they are apart in two runs of the same network with the same random numbers: mostly zero.
    """

    feed: Feed
    batches: Sequence[Batch]
    outputs: Sequence[Sequence[Tensor]]
    noise: float

    @classmethod
    def of(cls, model: nn.Module, feed: Feed, batches: Sequence[Batch]) -> Closeness:
        """Run the model on the first batches, twice.

        Raises:
            TaskError: it does not run.
        """
        first = batches[:_COMPARED]
        try:
            outputs = [outputs_of(model, feed, batch, rng_seed) for rng_seed, batch in enumerate(first)]
        except RankSearchError:
            raise
        except Exception as error:
            said = " ".join(str(error).split())
            raise TaskError(
                f"On a calibration batch the model's forward raised {type(error).__name__}: {said}. "
                "Pass batches that its forward accepts."
            ) from error
        plain = cls(feed, first, outputs, 0.0)
        return cls(feed, first, outputs, plain.error(model))

    def error(self, now: nn.Module) -> float:
        """The relative error of a copy's outputs, as in `Distance`."""
        distance = Distance()
        for rng_seed, (batch, expected) in enumerate(zip(self.batches, self.outputs, strict=True)):
            distance.add(expected, outputs_of(now, self.feed, batch, rng_seed))
        return distance.relative

    def surprise(self, error: float, before: float, predicted: float, worth: float, alone: bool = False) -> str:
        """What to say of a step from one error to another that was predicted to be much smaller; empty if it was not.

        Args:
            worth: what the bits that it saves are worth: no step is a surprise that is worth its error.
            alone: whether the least that the step may have added by itself is looked at, (√error − √before)² by the
                triangle inequality, and not the whole difference: beside an error that is there already, the least
                change of the outputs makes a large one.
        """
        roots = math.sqrt(error) - math.sqrt(before)
        moved = roots * abs(roots) if alone else error - before
        if moved <= max(_NEAR, self.noise, _FAR * predicted, worth):
            return ""
        return f"rounding it moved the outputs by {moved:.2g} of their square, where its gradient says {predicted:.2g}"

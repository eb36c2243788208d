"""The box that hypervolumes are measured in: from the best loss that can be hoped for to the worst worth having."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rank_search.basics import COSTS
from rank_search.point import Objective

_LEAST: Final = 1e-12

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ObjectiveBox:
    """Ideal and reference loss of one objective."""

    ideal: float
    reference: float

    def gain(self, losses: Array | float) -> Array:
        """1 at the ideal, 0 at the reference, negative beyond."""
        return np.asarray((self.reference - np.asarray(losses)) / (self.reference - self.ideal))

    def logarithm(self, losses: Array, floor: float) -> Array:
        """ln of the losses as shares of the box, `floor` added; losses below the ideal count as the ideal."""
        shares = (losses - self.ideal) / (self.reference - self.ideal)
        return np.asarray(np.log(np.maximum(0.0, shares) + floor))

    def exponential(self, logarithms: Array, floor: float) -> Array:
        """The losses that have these logarithms."""
        shares = np.exp(np.minimum(logarithms, 50.0)) - floor
        return np.asarray(self.ideal + np.maximum(0.0, shares) * (self.reference - self.ideal))


def box_of(objective: Objective, dense: float, wanted: float | None) -> ObjectiveBox:
    """Where an objective's losses lie.

    Costs lie between 0 and the dense model's. What a task measures lies between 0 (maximized: the larger of 1 and
    the dense model's) and a tenth, or half its own size if that is more, beyond the dense model's.

    Args:
        dense: what the dense model measures.
        wanted: the reference that the study file asks for, as a measurement.
    """
    loss = objective.loss(dense)
    margin = 0.0 if objective.name in COSTS else max(0.1, abs(loss) / 2)
    reference = loss + margin if wanted is None else objective.loss(wanted)
    ideal = min(0.0, loss) if objective.direction == "minimize" else objective.loss(max(1.0, dense))
    return ObjectiveBox(ideal, max(reference, ideal + _LEAST))

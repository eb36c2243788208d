"""The scale on which `auto` regresses a loss: its logarithm, and for a rate that of a hazard, which has no ceiling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Self, final

import numpy as np

from rank_search.basics import Float, is_rate
from rank_search.options import Array
from rank_search.pareto import ReferenceBox
from rank_search.point import Objective

FLOOR: Final = 0.004
"""Of a loss, as a share of its box: about two wrong answers among five hundred images. Below, differences are noise,
and their logarithms would pull the regression."""

_NEARLY_ALL: Final = 0.99
"""Of the way to the worst loss: what is beyond counts as this, for the hazard of the worst itself is infinite."""

_IN_SIGHT: Final = 0.5
"""Of the way to a rate's ceiling: a box that ends nearer to the ideal does not see it, and there logarithms found more,
as what is far beyond the box pulls the regression less (docs/benchmarks/search.md)."""

_UNBOUNDED: Final = 1e9
_LARGEST: Final = 50.0


@final
@dataclass(frozen=True)
class LossScale:
    """z = ln(−W·ln(1 − s/W)) of a loss whose share of the box is s − `FLOOR`, W the share of the worst there can be.

    Errors of layers add up to a logarithm of the loss as long as it is small. An error rate does not go on like that:
    near chance it stays where it is, however much more is cut. If each cut turns answers wrong at some rate, among
    those that are right still, then −ln(1 − s/W) is what adds up, the cumulative hazard; z is its complementary
    log-log (McCullagh and Nelder, "Generalized linear models", 1989, section 4.3.1). For small s, and for losses
    without a ceiling (W infinite), it is ln s.

    Attributes:
        side: the box of the one loss.
        worst: the loss's ceiling; infinite if it has none.

    >>> scale = LossScale(ReferenceBox((0.0,), (0.5,)), worst=1.0)
    >>> z = scale.of(np.array([0.01, 0.5, 0.9]))
    >>> z.round(2).tolist(), scale.losses(z).round(6).tolist()
    ([-3.72, 0.33, 1.53], [0.01, 0.5, 0.9])
    """

    side: ReferenceBox
    worst: float = math.inf

    @classmethod
    def of_objective(cls, objective: Objective, dense: float, side: ReferenceBox) -> Self:
        """The scale of an objective, by its name and what the dense model measures: only rates have a ceiling.

        A rate in percent is none that could be told from a number, and has no ceiling here; nor has one whose box ends
        far below it.
        """
        ceiling = objective.loss(0.0 if objective.direction == "maximize" else 1.0)
        is_share = is_rate(objective.name) and 0.0 <= dense <= 1.0
        ideal, reference = side.ideal[0], side.reference[0]
        is_in_sight = _IN_SIGHT * (ceiling - ideal) <= reference - ideal <= ceiling - ideal
        return cls(side, ceiling if is_share and is_in_sight else math.inf)

    def of(self, losses: Float[Array, " n"]) -> Float[Array, " n"]:
        """z of each loss; losses below the ideal count as the ideal, those near the worst as `_NEARLY_ALL` of it."""
        shares = np.maximum(0.0, self.side.share(losses)) + FLOOR
        return np.asarray(np.log(-self._widest * np.log1p(-np.minimum(shares / self._widest, _NEARLY_ALL))))

    def losses(self, z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The losses that have these z: the inverse of `of`, up to the worst."""
        hazards = np.exp(np.minimum(z, _LARGEST))
        shares = np.maximum(0.0, -self._widest * np.expm1(-hazards / self._widest) - FLOOR)
        ideal, reference = self.side.ideal[0], self.side.reference[0]
        return np.asarray(ideal + shares * (reference - ideal))

    @property
    def _widest(self) -> float:
        """W."""
        return min(_UNBOUNDED, float(self.side.share(np.array([self.worst]))[0])) + FLOOR

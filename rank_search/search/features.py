"""What a surrogate sees of a candidate."""

from __future__ import annotations

from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from rank_search.basics import Float, Int
from rank_search.options import Array

LEAST_ERROR: Final = 1e-3
LEAST_WEIGHT: Final = 0.05
LEAST_SLOPE: Final = 0.3


@final
class Features:
    """Rows of numbers in which the logarithm of a loss, as `LossScale` has it, is about linear.

    With e_g the error of group g, s = Σ e_g: 1, ln s, ln² s, the shares e_g/s, their sums by factorization, ln of
    the parameters and of the MACs kept, the penalties' coordinates and their squares, ln of the share of the budget. If
    the loss goes by Σ a_g·e_g, its logarithm is ln s + Σ (a_g − 1)·e_g/s to first order: so the weights of the shares
    are how much more, or less, a group's error counts than the others'.

    Attributes:
        scale: standard deviation of each weight before any data.
        flexible: which weights are those of the shares: how far they differ is learned.
    """

    def __init__(self, groups: int, kinds: int, penalties: int) -> None:
        self._groups, self._kinds = groups, kinds
        shares = [*[1.0] * groups, *[0.5] * kinds]
        self.scale = np.array([3.0, 2.0, 0.5, *shares, 0.5, 0.5, *[1.0] * (2 * penalties), 1.0])
        self.flexible = np.zeros(self.scale.size, dtype=np.bool_)
        self.flexible[3 : 3 + groups + kinds] = True

    def rows(
        self,
        errors: Float[Array, "n groups"],
        kinds: Int[NDArray[np.intp], "n groups"],
        kept: Float[Array, "n 2"],
        penalties: Float[Array, "n penalties"],
        budget: Float[Array, " n"] | float,
    ) -> Float[Array, "n weights"]:
        """One row for each candidate.

        Args:
            errors, kinds: error, and place of the factorization, of each group: n × groups.
            kept: parameters and MACs as shares of the dense model's, n × 2.
            penalties: coordinates on 0 to 1, n × penalties.
            budget: as a share of the full one.
        """
        total = errors.sum(axis=1) + LEAST_ERROR
        shares, logarithm = errors / total[:, None], np.log(total)
        by_kind = np.stack([(shares * (kinds == kind)).sum(axis=1) for kind in range(self._kinds)], axis=1)
        return np.column_stack(
            [
                np.ones(len(errors)),
                logarithm,
                logarithm**2,
                shares,
                by_kind,
                np.log(np.maximum(kept, 1e-6)),
                penalties,
                penalties**2,
                np.broadcast_to(np.log(np.maximum(budget, 1e-3)), len(errors)),
            ]
        )

    def positions(self, rows: Float[Array, "n weights"]) -> Float[Array, "n d"]:
        """Where rows lie for what a regression leaves of the loss: roots of the errors, penalties, ln of the budget.

        Roots, because of small errors the differences count more.
        """
        shares, rest = rows[:, 3 : 3 + self._groups], rows[:, 5 + self._groups + self._kinds :]
        penalties = rest[:, : rest.shape[1] // 2]
        return np.column_stack([np.sqrt(shares * np.exp(rows[:, 1:2])), penalties, rest[:, -1]])

    def weights(self, learned: Float[Array, "n weights"]) -> Float[Array, "n groups kinds"]:
        """How much errors count, 1 where nothing is known: n × groups × factorizations.

        Args:
            learned: weights of the rows, n × weights.
        """
        slope = np.maximum(LEAST_SLOPE, learned[:, 1, None, None])
        groups, kinds = np.split(learned[:, 3 : 3 + self._groups + self._kinds], [self._groups], axis=1)
        return np.asarray(np.maximum(LEAST_WEIGHT, 1.0 + (groups[:, :, None] + kinds[:, None, :]) / slope))

"""The box that hypervolumes are measured in: from the best losses that can be hoped for to the worst worth having."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from rank_search.basics import COSTS
from rank_search.errors import QueryError
from rank_search.pareto.dominance import loss_table
from rank_search.point import Objective

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

_LEAST: Final = 1e-12


@dataclass(frozen=True)
class ReferenceBox:
    """The ideal and the reference point of m objectives; every method takes losses (…, m), lower is better.

    Attributes:
        ideal, reference: m losses each, ideal < reference in every one.

    Raises:
        QueryError: they differ in length, or the ideal is not below the reference in every loss.

    >>> box = ReferenceBox(ideal=(0.0, 0.0), reference=(1.0, 10.0))
    >>> box.hypervolume([[0.5, 0.0], [0.0, 5.0]])
    0.75
    """

    ideal: tuple[float, ...]
    reference: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.ideal) != len(self.reference):
            raise QueryError(
                f"An ideal point of {len(self.ideal)} and a reference point of {len(self.reference)} losses make no "
                "box: both have one for each objective."
            )
        if not all(low < high for low, high in zip(self.ideal, self.reference, strict=True)):
            raise QueryError(
                f"The reference point {list(self.reference)} is not worse than the ideal {list(self.ideal)} in every "
                "loss. Choose a worse one."
            )

    @classmethod
    def of(cls, objectives: Sequence[Objective], dense: Mapping[str, float], wanted: Mapping[str, float]) -> Self:
        """Where the losses of these objectives lie.

        Costs lie between 0 and the dense model's. What a task measures lies between 0 (maximized: the larger of 1 and
        the dense model's) and a tenth, or half its own size if that is more, beyond the dense model's.

        Args:
            dense: what the dense model measures.
            wanted: the references that the study file asks for, as measurements.
        """
        sides = [_sides(each, dense[each.name], wanted.get(each.name)) for each in objectives]
        return cls(*(tuple(corner) for corner in zip(*sides, strict=True)))

    @classmethod
    def around(cls, boxes: Sequence[ReferenceBox]) -> Self:
        """The smallest box that holds all of these, of the same objectives."""
        return cls(
            tuple(map(min, zip(*(box.ideal for box in boxes), strict=True))),
            tuple(map(max, zip(*(box.reference for box in boxes), strict=True))),
        )

    def column(self, place: int) -> Self:
        """The box of one objective."""
        return type(self)((self.ideal[place],), (self.reference[place],))

    def share(self, losses: Array) -> Array:
        """Each loss as a share of its side of the box: 0 at the ideal, 1 at the reference, less or more beyond them."""
        ideal, reference = self._corners
        return (losses - ideal) / (reference - ideal)

    def gain(self, losses: Array) -> Array:
        """1 at the ideal, 0 at the reference, negative beyond."""
        ideal, reference = self._corners
        return (reference - losses) / (reference - ideal)

    def hypervolume(self, losses: ArrayLike) -> float:
        """The share of the box that the rows dominate: 0 to 1.

        `losses`: (n, m). With every loss as its `share` s of the box, this is λ(⋃_i [s_i, 1]^m), λ the Lebesgue measure
        (the size of the space covered; Zitzler and Thiele 1998, "Multiobjective optimization using evolutionary
        algorithms", section 3.1), computed by moocore.

        Edge cases: no rows (also an empty list) give 0, a row at the ideal point gives 1; a loss better than ideal
        counts as ideal; a row that is nowhere inside the box, or has a NaN, adds nothing; dominated and equal rows add
        nothing.
        Raises: QueryError if `losses` is not a table with a column for each objective.
        Complexity: O(n log n) for m ≤ 3, O(n²) for m = 4, O(n^(m−2)) beyond.
        """
        import numpy as np

        sides = len(self.reference)
        table = loss_table(losses, columns=sides)
        if table.shape[1] != sides:
            raise QueryError(f"Losses of {table.shape[1]} objectives do not fit a box of {sides}.")
        inside = table[np.all(table < self._corners[1], axis=1)]
        if not len(inside):
            return 0.0
        import moocore

        return float(moocore.hypervolume(np.maximum(0.0, self.share(inside)), ref=np.ones(sides)))

    @property
    def _corners(self) -> tuple[Array, Array]:
        import numpy as np

        return np.array(self.ideal), np.array(self.reference)


def _sides(objective: Objective, dense: float, wanted: float | None) -> tuple[float, float]:
    """Ideal and reference loss."""
    loss = objective.loss(dense)
    margin = 0.0 if objective.name in COSTS else max(0.1, abs(loss) / 2)
    reference = loss + margin if wanted is None else objective.loss(wanted)
    ideal = min(0.0, loss) if objective.direction == "minimize" else objective.loss(max(1.0, dense))
    return ideal, max(reference, ideal + _LEAST)

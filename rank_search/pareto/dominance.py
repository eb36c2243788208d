"""Pareto dominance and the hypervolume, on losses: lower is better in every column.

numpy and moocore are imported by the functions that need them: reading a front needs neither, and stays quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rank_search.errors import QueryError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is nowhere worse than `other` and somewhere better.

    `one`, `other`: m losses each. `one` ≺ `other` ⇔ ∀i: one_i ≤ other_i and ∃i: one_i < other_i
    (Pareto dominance; Zitzler et al. 2003, "Performance assessment of multiobjective optimizers", Table I).

    Edge cases: equal losses do not dominate each other, and NaN never dominates nor is dominated.
    Complexity: O(m).

    >>> dominates((1.0, 2.0), (1.0, 3.0)), dominates((1.0, 2.0), (1.0, 2.0))
    (True, False)
    """
    better = False
    for mine, yours in zip(one, other, strict=True):
        if not mine <= yours:
            return False
        better = better or mine < yours
    return better


def nondominated(losses: ArrayLike) -> NDArray[np.bool_]:
    """Which rows no other row dominates.

    `losses`: (n, m). Returns a mask (n,): mask_j ⇔ ∄i: losses_i ≺ losses_j, with ≺ as in `dominates`; computed
    by the sweep of Kung, Luccio and Preparata 1975, "On finding the maxima of a set of vectors" (moocore).

    Edge cases: no rows (also an empty list) give an empty mask; of equal rows all are kept; a row with a NaN is never
    kept and dominates nothing; infinities are ordinary, very bad or very good, losses.
    Raises: QueryError if `losses` is not a table with at least one column.
    Complexity: O(n log n) for m ≤ 3, O(n · log(n)^(m−2)) beyond.

    >>> nondominated([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [1.0, 2.0]]).tolist()
    [True, True, False, True]
    """
    import moocore
    import numpy as np

    table = _table(losses)
    mask = np.zeros(len(table), dtype=np.bool_)
    rows = np.flatnonzero(~np.isnan(table).any(axis=1))
    if len(rows):
        mask[rows] = moocore.is_nondominated(_places(table[rows]), keep_weakly=True)
    return mask


def hypervolume(losses: ArrayLike, reference: Sequence[float], ideal: Sequence[float]) -> float:
    """The share of the box between ideal and reference point that the rows dominate: 0 to 1.

    `losses`: (n, m); `reference`, `ideal`: m losses each, ideal < reference. With every loss scaled to
    (losses − ideal) / (reference − ideal), this is λ(⋃_i [losses_i, 1]^m), λ the Lebesgue measure
    (the size of the space covered; Zitzler and Thiele 1998, "Multiobjective optimization using evolutionary
    algorithms", section 3.1), computed by moocore.

    Edge cases: no rows (also an empty list) give 0, a row at the ideal point gives 1; a loss better than ideal counts
    as ideal; a row that is nowhere inside the box, or has a NaN, adds nothing; dominated and equal rows add nothing.
    Raises: QueryError if the sizes differ, or the ideal is not below the reference point in every loss.
    Complexity: O(n log n) for m ≤ 3, O(n²) for m = 4, O(n^(m−2)) beyond.

    >>> hypervolume([[0.5, 0.0], [0.0, 0.5]], reference=(1.0, 1.0), ideal=(0.0, 0.0))
    0.75
    """
    import moocore
    import numpy as np

    table = _table(losses, columns=max(1, len(reference)))
    low, high = np.asarray(ideal, dtype=float), np.asarray(reference, dtype=float)
    _require_box(table, low, high)
    inside = np.all(table < high, axis=1)
    if not inside.any():
        return 0.0
    scaled = (np.maximum(table[inside], low) - low) / (high - low)
    return float(moocore.hypervolume(scaled, ref=np.ones(len(high))))


def _table(losses: ArrayLike, columns: int = 1) -> NDArray[np.float64]:
    """The losses as a table; an empty list is one without rows."""
    import numpy as np

    table = np.array(losses, dtype=np.float64)
    if table.shape == (0,):
        return table.reshape(0, columns)
    if table.ndim != 2 or table.shape[1] == 0:
        raise QueryError(
            f"Losses are a table: a row for each trial, a column for each objective; found the shape {table.shape}."
        )
    return table


def _places(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each loss as its place within its column, which says the same about dominance.

    moocore 0.3 may end the process when it meets infinities in three columns; places are finite.
    """
    import numpy as np

    columns = [np.unique(column, return_inverse=True)[1] for column in table.T]
    return np.stack(columns, axis=1).astype(np.float64)


def _require_box(table: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
    width = table.shape[1]
    if low.shape != (width,) or high.shape != (width,):
        raise QueryError(
            f"The ideal and the reference point have one loss for each objective: {width} expected, "
            f"found {low.size} and {high.size}."
        )
    if not (low < high).all():
        raise QueryError(
            "The ideal is below the reference point in every loss; "
            f"found {low.tolist()} and {high.tolist()}. Choose a worse reference point."
        )

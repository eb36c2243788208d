"""One option for each group, with the least Σ error within limits on Σ cost: the multiple-choice knapsack problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from rank_search.pareto import nondominated

Array = NDArray[np.float64]
Places = NDArray[np.intp]

WIDTHS: Final = (500, 5_000, 50_000)
"""Partial sums that are kept at a time, in one try after another, until nothing that matters is left out."""

_ROUNDING: Final = 1e-12
"""Relative: sums of the same numbers in another order differ by less."""

_SLACK: Final = 1e-7
"""Relative, of the limits of the linear program, so that its own tolerances never lose a pick."""

_TINY: Final = 1e-300


@final
@dataclass(frozen=True)
class Picked:
    """What was picked.

    Attributes:
        chosen: the place of each group's option.
        error: Σ over the groups.
        gap: no other pick within the limits has an error below `error` − `gap`; 0 where this is the optimum.
    """

    chosen: tuple[int, ...]
    error: float
    gap: float


def pick(costs: Sequence[Array], errors: Sequence[Array], limits: Array) -> Picked | None:
    """The pick of least Σ error whose Σ cost keeps every limit.

    Symbols: G groups; group g has the options o with costs c_go (options × limits) and errors e_go; b the limits. Least
    Σ_g e_g,o(g) with Σ_g c_g,o(g) ≤ b. Partial sums are merged group after group (Nemhauser and Ullmann, "Discrete
    dynamic programming and capital allocation", 1969); a partial sum is left out if another one is nowhere worse, if
    the cheapest rest breaks a limit, or if its Lagrangian bound, e + λᵀ(c − b) with the least of the groups to come,
    says that it cannot beat the best pick that is known. λ are the prices of the linear relaxation. The best
    pick for one limit that keeps the others is the best for all.

    Edge cases: no groups give an empty pick, if no limit is negative; a limit counts as kept if it is exceeded by
    rounding (`_ROUNDING`). None if no pick keeps the limits. Exact (`gap` 0) as long as at most the last of `WIDTHS`
    partial sums matter at a time: so it is for one limit, and for two on a hundred groups of eighty options; beyond,
    the best pick found, and by how much it may be beaten.

    Complexity: a linear program of all options, then O(G·s·o·log(s·o)) for o options of a group and s partial sums.

    >>> costs = [np.array([[4.0], [2.0], [1.0]]), np.array([[4.0], [1.0]])]
    >>> pick(costs, [np.array([0.0, 1.0, 5.0]), np.array([0.0, 9.0])], np.array([5.5]))
    Picked(chosen=(2, 0), error=5.0, gap=0.0)
    """
    most = limits + _ROUNDING * np.abs(limits)
    if (np.sum([each.min(axis=0) for each in costs], axis=0) > most).any():
        return None
    for limit in range(len(limits)) if len(limits) > 1 else ():
        alone = _picked([each[:, [limit]] for each in costs], errors, most[[limit]])
        if alone is not None and not alone.gap and (_total(costs, alone.chosen) <= most).all():
            return alone
    return _picked(costs, errors, most)


def _total(costs: Sequence[Array], chosen: Sequence[int]) -> Array:
    total: Array = np.sum([cost[place] for cost, place in zip(costs, chosen, strict=True)], axis=0)
    return total


def _picked(costs: Sequence[Array], errors: Sequence[Array], limits: Array) -> Picked | None:
    prices = _relaxed_prices(costs, errors, limits)
    if prices is None:
        return None
    sums = _PartialSums.of(costs, errors, limits, prices)
    best: Picked | None = None
    for width in WIDTHS:
        best, least_left_out = sums.merged(width, best)
        if best is not None and least_left_out >= best.error:
            return Picked(best.chosen, best.error, 0.0)
    return None if best is None else Picked(best.chosen, best.error, best.error - least_left_out)


def _relaxed_prices(costs: Sequence[Array], errors: Sequence[Array], limits: Array) -> Array | None:
    """What a unit of each limit is worth where options may be mixed; None if even mixtures break the limits."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    if not costs:
        return np.zeros(len(limits))
    groups = np.repeat(np.arange(len(costs)), [len(each) for each in costs])
    one_each = csr_array((np.ones(len(groups)), (groups, np.arange(len(groups)))))
    all_costs = np.concatenate(costs)
    unit = np.maximum(np.abs(all_costs).max(axis=0), _TINY)
    solved = linprog(
        np.concatenate(errors),
        A_ub=(all_costs / unit).T,
        b_ub=(limits + _SLACK * np.abs(limits)) / unit,
        A_eq=one_each,
        b_eq=np.ones(len(costs)),
    )
    if solved.status == 2:
        return None
    prices: Array = np.maximum(-solved.ineqlin.marginals, 0.0) / unit if solved.status == 0 else np.zeros(len(limits))
    return prices


@final
@dataclass(frozen=True)
class _PartialSums:
    """The options of each group that no other one dominates, and what the Lagrangian says of them.

    Attributes:
        kept: places of these options in what was given.
        costs, errors: of these.
        excess: of each, e + λᵀc above the least of its group.
        rest: Σ over the groups from here on of the least cost, for each limit: groups + 1 × limits.
        bound: what the Lagrangian says of the best pick: Σ_g min_o (e + λᵀc) − λᵀb.
    """

    kept: tuple[Places, ...]
    costs: tuple[Array, ...]
    errors: tuple[Array, ...]
    excess: tuple[Array, ...]
    rest: Array
    limits: Array
    bound: float

    @classmethod
    def of(cls, costs: Sequence[Array], errors: Sequence[Array], limits: Array, prices: Array) -> _PartialSums:
        kept = tuple(_undominated(cost, error) for cost, error in zip(costs, errors, strict=True))
        costs = tuple(cost[places] for cost, places in zip(costs, kept, strict=True))
        errors = tuple(error[places] for error, places in zip(errors, kept, strict=True))
        weighed = [error + cost @ prices for cost, error in zip(costs, errors, strict=True)]
        least = [float(each.min()) for each in weighed]
        rest = np.zeros((len(costs) + 1, len(limits)))
        for group in reversed(range(len(costs))):
            rest[group] = rest[group + 1] + costs[group].min(axis=0)
        excess = tuple(each - low for each, low in zip(weighed, least, strict=True))
        return cls(kept, costs, errors, excess, rest, limits, sum(least) - float(prices @ limits))

    def merged(self, width: int, known: Picked | None) -> tuple[Picked | None, float]:
        """The best pick found with `width` partial sums, and a bound on the error of what was left out for that."""
        most = np.inf if known is None else known.error - self.bound
        most += _ROUNDING * (1 + abs(self.bound) + (0 if known is None else known.error))
        cost, error, excess = np.zeros((1, len(self.limits))), np.zeros(1), np.zeros(1)
        steps: list[tuple[Places, Places]] = []
        left_out = np.inf
        for group in range(len(self.costs)):
            cost, error, excess, step = self._next(group, cost, error, excess, most)
            if len(error) > width:
                order = np.argsort(excess, kind="stable")
                left_out = min(left_out, float(excess[order[width]]))
                cost, error, excess, step = (
                    *(each[order[:width]] for each in (cost, error, excess)),
                    step[order[:width]],
                )
            if not len(error):
                return known, self.bound + left_out
            steps.append((step[:, 0], step[:, 1]))
        best = int(np.lexsort((cost.sum(axis=1), error))[0])
        found = Picked(self._traced(steps, best), float(error[best]), 0.0)
        better = known is None or (found.error, found.chosen) < (known.error, known.chosen)
        return (found if better else known), self.bound + left_out

    def _next(
        self, group: int, cost: Array, error: Array, excess: Array, most: float
    ) -> tuple[Array, Array, Array, Places]:
        """Every partial sum with every option of the next group, as far as it may lead to the best pick."""
        own_cost, own_error, own_excess = self.costs[group], self.errors[group], self.excess[group]
        sums = cost[:, None, :] + own_cost[None, :, :]
        possible = (sums + self.rest[group + 1] <= self.limits).all(axis=2)
        possible &= excess[:, None] + own_excess[None, :] <= most
        step = np.argwhere(possible)
        before, option = step.T
        cost, error = sums[before, option], error[before] + own_error[option]
        kept = _undominated(cost, error)
        return cost[kept], error[kept], (excess[before] + own_excess[option])[kept], step[kept]

    def _traced(self, steps: Sequence[tuple[Places, Places]], last: int) -> tuple[int, ...]:
        chosen = []
        for group in reversed(range(len(steps))):
            before, option = steps[group]
            chosen.append(int(self.kept[group][option[last]]))
            last = int(before[last])
        return tuple(reversed(chosen))


def _undominated(cost: Array, error: Array) -> Places:
    """Where no other row is nowhere worse; of equal rows the first one."""
    if cost.shape[1] == 1:
        order = np.lexsort((error, cost[:, 0]))
        lowest = np.minimum.accumulate(error[order])
        return np.sort(order[np.concatenate([[True], lowest[1:] < lowest[:-1]])[: len(order)]])
    rows, first = np.unique(np.column_stack([cost, error]), axis=0, return_index=True)
    return np.sort(first[nondominated(rows)]) if len(rows) else first

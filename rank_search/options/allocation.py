"""How to spread a cost over the layers: the corners of the front of Σ error against Σ cost, by a Lagrangian sweep."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rank_search.options.cost_model import OF_MACS, OF_PARAMS
from rank_search.options.table import Option, OptionTable

Shares = Mapping[str, float]
"""What a parameter and a MAC weigh: by `"params"` and `"macs"`, relative to the dense model's."""

_SMALLEST: Final = 1e-12

_Gap = tuple[float, int, int, int]
"""The gain, negative, of the best point between two neighbours; its place; theirs."""


@dataclass(frozen=True)
class HullPoint:
    """One corner of the convex hull of the front.

    Attributes:
        chosen: the place of each group's option in what was given.
        price: of a unit of cost, in units of error, from which on this is the best.
        cost, error: Σ over the groups.
    """

    chosen: tuple[int, ...]
    price: float
    cost: float
    error: float


@dataclass(frozen=True)
class _Step:
    """From one corner of a group's hull to the next cheaper one."""

    price: float
    group: int
    to: int
    saved: float
    added: float


def lagrangian_front(costs: Sequence[Sequence[float]], errors: Sequence[Sequence[float]]) -> list[HullPoint]:
    """Every allocation that is best for some price: least Σ error + price·Σ cost, for all prices at once.

    Symbols: group g has options with cost c_go and error e_go. For a given price each group decides for itself, so as
    the price grows it walks along the lower convex hull of its own (c, e) from the least error to the least cost; the
    steps of all groups, in the order of their prices Δe/Δc, are the sweep. It is exact: what comes out are the corners
    of the convex hull of the front over all combinations of options (Shoham and Gersho, "Efficient bit allocation for
    an arbitrary set of quantizers", 1988). What lies above that hull no price finds.

    Edge cases: of options with equal errors only the cheapest counts; groups with one option never move; ties of
    prices are taken in the order of the groups. The first allocation has the least error (price 0), the last one the
    least cost; errors grow and costs fall from one to the next.

    Complexity: O(n·log n) in the number of all options.

    >>> front = lagrangian_front([[4, 2, 1], [4, 1]], [[0, 1, 5], [0, 9]])
    >>> [(each.chosen, each.cost, each.error) for each in front]
    [((0, 0), 8, 0), ((1, 0), 6, 1), ((1, 1), 3, 10), ((2, 1), 2, 14)]
    """
    hulls = [lower_hull(cost, error) for cost, error in zip(costs, errors, strict=True)]
    chosen = [hull[0] for hull in hulls]
    cost = sum(costs[group][option] for group, option in enumerate(chosen))
    error = sum(errors[group][option] for group, option in enumerate(chosen))
    front = [HullPoint(tuple(chosen), 0.0, cost, error)]
    for step in sorted(_steps(hulls, costs, errors), key=lambda step: step.price):
        chosen[step.group] = step.to
        cost, error = cost - step.saved, error + step.added
        front.append(HullPoint(tuple(chosen), step.price, cost, error))
    return front


def lower_hull(cost: Sequence[float], error: Sequence[float]) -> list[int]:
    """Corners of the lower convex hull of points (c, e), from the least error to the least cost.

    Symbols: c, e the costs and errors, n each; returned are places in them. Along the corners errors grow, costs fall,
    and so does the saving for each unit of error. Of equal points the first counts; no points have no corners.
    O(n·log n).

    >>> lower_hull([4, 3, 2, 1], [0, 4, 1, 5])
    [0, 2, 3]
    """
    corners: list[int] = []
    for option in sorted(range(len(cost)), key=lambda option: (error[option], cost[option])):
        if corners and cost[option] >= cost[corners[-1]]:
            continue
        while len(corners) > 1 and _is_above(cost, error, corners[-2], corners[-1], option):
            corners.pop()
        corners.append(option)
    return corners


def _is_above(cost: Sequence[float], error: Sequence[float], first: int, middle: int, last: int) -> bool:
    """Whether the middle corner lies on or above the line from the first to the last."""
    before = (error[middle] - error[first]) * (cost[middle] - cost[last])
    after = (error[last] - error[middle]) * (cost[first] - cost[middle])
    return before >= after


def _steps(
    hulls: Sequence[Sequence[int]], costs: Sequence[Sequence[float]], errors: Sequence[Sequence[float]]
) -> list[_Step]:
    found = []
    for group, hull in enumerate(hulls):
        for start, end in itertools.pairwise(hull):
            saved = costs[group][start] - costs[group][end]
            added = errors[group][end] - errors[group][start]
            found.append(_Step(added / saved, group, end, saved, added))
    return found


def spread(front: Sequence[HullPoint], count: int, fixed: float = 0.0) -> list[HullPoint]:
    """A handful of the front, evenly spaced in the logarithm of the cost, the first (least error) left out.

    Args:
        count: how many, at most.
        fixed: cost of what is not chosen for.

    Edge cases: an empty front, and one with a single allocation, give nothing; a front with fewer gives fewer, evenly
    spaced all the same.

    >>> front = lagrangian_front([[8, 4, 2, 1]], [[0, 1, 3, 9]])
    >>> [each.cost for each in spread(front, 2)]
    [2, 1]
    """
    if len(front) < 2:
        return []
    total = [each.cost + fixed for each in front]
    high, low = math.log(max(total[0], _SMALLEST)), math.log(max(total[-1], _SMALLEST))
    wanted = [math.exp(high + (low - high) * step / count) for step in range(1, count + 1)]
    nearest = [min(range(1, len(front)), key=lambda place: abs(total[place] - cost)) for cost in wanted]
    return [front[place] for place in dict.fromkeys(nearest)]


def by_gain(front: Sequence[HullPoint], cost: float, error: float) -> list[HullPoint]:
    """Points of a front in the order in which each adds the most hypervolume to those before it.

    So the first few are spread over the front, and whoever looks at it early sees most of it.

    Symbols: between neighbours a (dearer) and b (cheaper) that come before it, point i adds (e_b − e_i)·(c_a − c_i).

    Args:
        front: as `spread` gives it: errors grow and costs fall.
        cost, error: where the hypervolume ends, at least those of all points.

    Edge cases: of equal gains the dearer point is first; one point is itself, none gives none. O(n²) at worst.

    >>> front = lagrangian_front([[8, 6, 4, 2, 0]], [[0, 1, 3, 6, 10]])
    >>> [each.cost for each in by_gain(front[1:], 8, 10)]
    [4, 2, 6, 0]
    """
    points = [HullPoint((), 0.0, cost, 0.0), *front, HullPoint((), 0.0, 0.0, error)]
    ordered: list[HullPoint] = []
    gaps = _best_of(points, 0, len(points) - 1)
    while gaps:
        _, place, dearer, cheaper = heapq.heappop(gaps)
        ordered.append(points[place])
        for gap in (*_best_of(points, dearer, place), *_best_of(points, place, cheaper)):
            heapq.heappush(gaps, gap)
    return ordered


def _best_of(points: Sequence[HullPoint], dearer: int, cheaper: int) -> list[_Gap]:
    """The point of most gain between two neighbours, if there is any between them."""
    before, after = points[dearer], points[cheaper]
    gains = [
        (-(after.error - point.error) * (before.cost - point.cost), place, dearer, cheaper)
        for place, point in enumerate(points[dearer + 1 : cheaper], start=dearer + 1)
    ]
    return [min(gains)] if gains else []


def cost_shares(objectives: Sequence[str]) -> list[Shares]:
    """What costs are worth, in each way that an objective cares about; both alike where several do, or none.

    >>> cost_shares(["error", "latency"]), cost_shares(["error"])
    ([{'params': 0.0, 'macs': 1.0}], [{'params': 0.5, 'macs': 0.5}])
    """
    shares: list[Shares] = []
    if OF_MACS & set(objectives):
        shares.append({"params": 0.0, "macs": 1.0})
    if OF_PARAMS & set(objectives):
        shares.append({"params": 1.0, "macs": 0.0})
    both: Shares = {"params": 0.5, "macs": 0.5}
    return shares if len(shares) == 1 else [*shares, both]


def minds_costs(objectives: Sequence[str]) -> bool:
    """Whether any objective is a cost.

    >>> minds_costs(["error", "bits"]), minds_costs(["error"])
    (True, False)
    """
    return bool((OF_MACS | OF_PARAMS) & set(objectives))


def mean_shares(objectives: Sequence[str]) -> Shares:
    """The average of these.

    >>> mean_shares(["error", "macs", "bits"])
    {'params': 0.5, 'macs': 0.5}
    """
    shares = cost_shares(objectives)
    return {name: sum(each[name] for each in shares) / len(shares) for name in ("params", "macs")}


def price_of(option: Option, shares: Shares, dense: Mapping[str, float]) -> float:
    """The cost of an option as a share of the dense model's, parameters and MACs weighed as given.

    A dense model without MACs counts as one with one.

    >>> price_of(Option({}, params=10, macs=30, error=0.0), {"params": 0.5, "macs": 0.5}, {"params": 20, "macs": 100})
    0.4
    """
    return shares["params"] * option.params / dense["params"] + shares["macs"] * option.macs / max(1, dense["macs"])


def sweep(table: OptionTable, shares: Shares) -> list[HullPoint]:
    """The corners of the front of a table: Σ error against a weighed cost of what the options are chosen for.

    >>> from rank_search.layers import Cost
    >>> from rank_search.options.cost_model import CostModel
    >>> table = OptionTable([], CostModel({}, {}, Cost(10, 100)), lambda layer, choice: 0.0)
    >>> [(each.cost, each.error) for each in sweep(table, {"params": 0.5, "macs": 0.5})]
    [(0, 0)]
    """
    groups = table.of.values()
    costs = [[price_of(option, shares, table.dense) for option in options] for options in groups]
    return lagrangian_front(costs, [[option.error for option in options] for options in groups])

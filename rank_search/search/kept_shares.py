"""Coordinates in which every point keeps a budget: the share of its cost that each group keeps beside the others."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final, final

import numpy as np
from optuna.distributions import FloatDistribution

from rank_search.basics import to_four_digits
from rank_search.options import CostModel, Option, OptionTable
from rank_search.point import DENSE, AxisValue, Choice, Point
from rank_search.search.constraints import COUNTED, upper_limits
from rank_search.search.coordinate_system import CoordinateSystem
from rank_search.search.coordinates import Coordinates, penalties_at, penalty_coordinates, penalty_ranges
from rank_search.search.samplers import Distributions
from rank_search.search.settings import SearchSettings
from rank_search.search.space import Space

BUDGET: Final = "budget"

LEAST_SHARE: Final = 0.2
"""Of what a group keeps where another keeps everything, as in Bolaco's search."""

_HALVINGS: Final = 40


@final
class KeptShares(CoordinateSystem):
    """For each group the share s_g that it keeps beside the others, and what the whole model may cost.

    Symbols: c_g(s) is the cost of what has the least error in the group and costs at most s times as much as dense (its
    cheapest option where nothing does), C the cost of what is not searched, B the budget. The point has what is at
    min(1, t·s_g), with the largest t for which C + Σ_g c_g(min(1, t·s_g)) ≤ B. So no point is lost to the budget, and
    what is searched is how the cost is spread: the feasible sampling of Bolaco (Ji et al. 2024, arXiv:2405.10616).
    The budget is the tightest bound on a counted cost among the constraints; it is searched, too, from the least cost
    to that bound, where the cost is an objective or no bound is given.

    Args:
        space: the groups and the strengths of the penalties.
        options: what each group may become.
        settings: objectives and constraints.
    """

    def __init__(self, space: Space, options: OptionTable, settings: SearchSettings) -> None:
        self._space, self._options = space, options
        self._cost = _counted_cost(settings)
        self._curves = {name: _Curve(choices, self._cost, space.round_to) for name, choices in options.of.items()}
        limit = upper_limits(settings.constraints, options.dense).get(self._cost)
        self._dense = max(1.0, options.dense[self._cost])
        least = self._rest + sum(curve.least for curve in self._curves.values())
        self._most = max(least, self._dense if limit is None else min(limit, self._dense))
        searched = limit is None or any(each.name == self._cost for each in settings.objectives)
        self._least = least if searched else self._most

    @property
    def costs(self) -> CostModel:
        return self._options.costs

    def distributions(self) -> Distributions:
        shares = {_share(name): FloatDistribution(LEAST_SHARE, 1.0) for name in self._curves}
        budget = FloatDistribution(self._least / self._dense, self._most / self._dense)
        return {BUDGET: budget, **shares, **penalty_ranges(self._space)}

    def point_at(self, params: Coordinates) -> Point:
        wanted = {name: float(params[_share(name)]) for name in self._curves}
        layers = self._within(wanted, float(params[BUDGET]) * self._dense)
        return Point(layers, penalties_at(self._space, layers, params))

    def coordinates_of(self, point: Point) -> Coordinates:
        layers = {layer: point.layers.get(layer, Choice()) for each in self._space.groups for layer in each.layers}
        chosen = dict(zip(self._curves, self._options.describe(Point(layers)), strict=True))
        kept = {name: getattr(option, self._cost) / self._curves[name].dense for name, option in chosen.items()}
        most = max(kept.values())
        shares = {_share(name): min(1.0, max(LEAST_SHARE, share / most)) for name, share in kept.items()}
        total = self._options.total(list(chosen.values()))[self._cost]
        budget = min(max(total, self._least), self._most) / self._dense
        return {BUDGET: budget, **shares, **penalty_coordinates(self._space, point)}

    def near(self, params: Coordinates, distance: float, rng: np.random.Generator) -> Coordinates | None:
        """Each coordinate moved by a normal deviate of that size.

        A Gaussian process returns to the same optimum until it learns more, and many coordinates stand for one point.
        """
        found: dict[str, str | float] = {}
        for name, each in self.distributions().items():
            low, high = each.low, each.high  # type: ignore[attr-defined]
            moved = float(params[name]) + distance * (high - low) * float(rng.standard_normal())
            found[name] = min(max(moved, low), high)
        return found

    @property
    def _rest(self) -> float:
        return float(self._options.rest[self._cost])

    def _within(self, wanted: Mapping[str, float], budget: float) -> dict[str, Choice]:
        """By bisection of the common factor t, whose ends keep everything and next to nothing."""
        low, high = 0.0, 1 / LEAST_SHARE
        if self._total(wanted, high) <= budget:
            low = high
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._total(wanted, middle) <= budget else (low, middle)
        chosen = [curve.at(low * wanted[name]) for name, curve in self._curves.items()]
        return {layer: choice for choices in chosen for layer, choice in choices.items()}

    def _total(self, wanted: Mapping[str, float], factor: float) -> float:
        return self._rest + sum(curve.cost_at(factor * wanted[name]) for name, curve in self._curves.items())


@final
class _Curve:
    """What a group becomes within a cost: its options of which none is cheaper and has less error, and all between.

    Between two options of one factorization axis values are interpolated, and rounded down. The cost is taken for
    linear there, which it is in one rank; in several it is convex, so that it is never higher than that.
    """

    def __init__(self, options: Sequence[Option], cost: str, round_to: int) -> None:
        ordered = sorted(options, key=lambda each: (getattr(each, cost), each.error))
        least = itertools.accumulate((each.error for each in ordered), min, initial=math.inf)
        self._kept = [each for each, before in zip(ordered, least, strict=False) if each.error < before]
        self._costs = [float(getattr(each, cost)) for each in self._kept]
        self._round_to = round_to
        self.dense = max(1.0, float(getattr(options[0], cost)))
        self.least = self._costs[0]

    def at(self, share: float) -> Mapping[str, Choice]:
        place, part = self._place(share)
        below = self._kept[place].choices
        if not part:
            return below
        above = self._kept[place + 1].choices
        return {layer: self._between(below[layer], above[layer], part) for layer in below}

    def cost_at(self, share: float) -> float:
        place, part = self._place(share)
        return self._costs[place] + (part and part * (self._costs[place + 1] - self._costs[place]))

    def _place(self, share: float) -> tuple[int, float]:
        """The dearest option within a share of the dense cost, and how far it is from there to the next one."""
        most = min(1.0, share) * self.dense
        place = max(0, bisect.bisect_right(self._costs, most) - 1)
        if place + 1 == len(self._kept) or most < self._costs[place] or not self._are_alike(place):
            return place, 0.0
        return place, (most - self._costs[place]) / (self._costs[place + 1] - self._costs[place])

    def _are_alike(self, place: int) -> bool:
        some, others = (self._kept[each].choices for each in (place, place + 1))
        return all(some[layer].factorization == others[layer].factorization != DENSE for layer in some)

    def _between(self, low: Choice, high: Choice, part: float) -> Choice:
        return Choice(
            low.factorization, {axis: self._value(low.values[axis], high.values[axis], part) for axis in low.values}
        )

    def _value(self, low: AxisValue, high: AxisValue, part: float) -> AxisValue:
        exact = low + part * (high - low)
        if isinstance(low, int) and isinstance(high, int):
            return low + math.floor((exact - low) / self._round_to) * self._round_to
        return to_four_digits(exact)


def _counted_cost(settings: SearchSettings) -> str:
    named = [*(each.name for each in settings.constraints), *(each.name for each in settings.objectives)]
    return next((name for name in named if name in COUNTED), "params")


def _share(group: str) -> str:
    return f"share:{group}"

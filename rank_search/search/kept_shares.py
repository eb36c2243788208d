"""Coordinates in which every point keeps a budget: the share of its cost that each group keeps beside the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, final

import numpy as np
from optuna.distributions import FloatDistribution

from rank_search.basics import Float, Int
from rank_search.options import CostModel, Option, OptionTable
from rank_search.point import Choice, Point
from rank_search.search.constraints import COUNTED
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

    Symbols: c_g(s) is the cost of the group's option of least error that costs at most s times as much as dense (its
    cheapest option where none does), C the cost of what is not searched, B the budget. The point has the options at
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
        self._curves = {name: _Curve(choices, self._cost) for name, choices in options.of.items()}
        bounds = [each for each in settings.constraints if each.name == self._cost and each.sign.startswith("<")]
        self._dense = max(1.0, options.dense[self._cost])
        least = self._rest + sum(curve.least for curve in self._curves.values())
        self._most = max(least, min([self._dense, *(each.absolute(options.dense) for each in bounds)]))
        searched = not bounds or any(each.name == self._cost for each in settings.objectives)
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
        chosen = self._within(wanted, float(params[BUDGET]) * self._dense)
        layers = {layer: choice for option in chosen for layer, choice in option.choices.items()}
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

    @property
    def _rest(self) -> float:
        return float(self._options.rest[self._cost])

    def _within(self, wanted: Mapping[str, float], budget: float) -> list[Option]:
        """By bisection of the common factor t, whose ends keep everything and next to nothing."""
        low, high = 0.0, 1 / LEAST_SHARE
        if self._total(wanted, high) <= budget:
            low = high
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._total(wanted, middle) <= budget else (low, middle)
        return [curve.at(low * wanted[name]) for name, curve in self._curves.items()]

    def _total(self, wanted: Mapping[str, float], factor: float) -> float:
        found = (getattr(curve.at(factor * wanted[name]), self._cost) for name, curve in self._curves.items())
        return self._rest + float(sum(found))


@final
class _Curve:
    """A group's options by cost, and which has the least error within each."""

    def __init__(self, options: Sequence[Option], cost: str) -> None:
        self._sorted = sorted(options, key=lambda each: (getattr(each, cost), each.error))
        self._costs: Float[np.ndarray, " options"] = np.array([getattr(each, cost) for each in self._sorted])
        self._best: Int[np.ndarray, " options"] = _first_least(np.array([each.error for each in self._sorted]))
        self.dense = max(1.0, float(getattr(options[0], cost)))
        self.least = float(self._costs[0])

    def at(self, share: float) -> Option:
        place = int(np.searchsorted(self._costs, min(1.0, share) * self.dense, side="right")) - 1
        return self._sorted[int(self._best[max(0, place)])]


def _first_least(errors: Float[np.ndarray, " options"]) -> Int[np.ndarray, " options"]:
    """Of each beginning of the list, the place of the least error.

    >>> _first_least(np.array([3.0, 1.0, 2.0])).tolist()
    [0, 1, 1]
    """
    least = np.minimum.accumulate(errors)
    return np.maximum.accumulate(np.where(errors == least, np.arange(len(errors)), 0))


def _counted_cost(settings: SearchSettings) -> str:
    named = [*(each.name for each in settings.constraints), *(each.name for each in settings.objectives)]
    return next((name for name in named if name in COUNTED), "params")


def _share(group: str) -> str:
    return f"share:{group}"

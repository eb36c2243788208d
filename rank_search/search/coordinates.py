"""From coordinates, which the sampler sees, to a point, which is tried; and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from rank_search.options import AxisRange, CostModel, Group, normalized
from rank_search.point import DENSE, Choice, Point
from rank_search.search.space import Space

Coordinates = Mapping[str, str | float]

WEAKENING = "weakening"

_ON_FACTORS: Final = ("orthogonality", "sparsity")


def coordinates(space: Space) -> dict[str, BaseDistribution]:
    """Name and range of each coordinate. None depends on another: a sampler is always asked for all of them.

    Ranks are floats here, because a Gaussian process is ten times slower on whole numbers.
    """
    found: dict[str, BaseDistribution] = {WEAKENING: FloatDistribution(*space.weakening)} if space.groups else {}
    for group in space.groups:
        found[group.factorization] = CategoricalDistribution(group.choices)
        for name in group.multipliers:
            found[name] = FloatDistribution(-space.multiplier, space.multiplier)
    return found | penalty_ranges(space)


def penalty_ranges(space: Space) -> dict[str, BaseDistribution]:
    """Name and range of the coordinate of each penalty whose strength is searched."""
    return {name: FloatDistribution(*strength.interval) for name, strength in space.searched_penalties.items()}


def point_at(space: Space, costs: CostModel, params: Coordinates) -> Point:
    """The point that coordinates stand for.

    The value of an axis is clamp(2^multiplier × value at the weakening, low, high), rounded. A layer whose
    factorization would save nothing becomes dense (see `CostModel.saves`). Many coordinates give one point.

    Complexity: linear in the coordinates, apart from costs that have not been counted before.
    """
    layers: dict[str, Choice] = {}
    for group in space.groups:
        for layer in group.layers:
            layers[layer] = normalized(costs, layer, _choice(space, group, layer, params))
    return Point(layers, penalties_at(space, layers, params))


def penalties_at(space: Space, layers: Mapping[str, Choice], params: Coordinates) -> dict[str, float]:
    """The strengths that coordinates stand for; see `without_frames`."""
    searched = space.searched_penalties
    penalties = {
        name: strength.at(float(params[name])) if name in searched else strength.low
        for name, strength in space.penalties.items()
    }
    return without_frames(layers, penalties)


def without_frames(layers: Mapping[str, Choice], penalties: Mapping[str, float]) -> dict[str, float]:
    """The penalties, those on factors off if every layer is dense: they would act on nothing."""
    if all(choice.is_dense for choice in layers.values()):
        return {name: 0.0 if name in _ON_FACTORS else strength for name, strength in penalties.items()}
    return dict(penalties)


def _choice(space: Space, group: Group, layer: str, params: Coordinates) -> Choice:
    name = str(params[group.factorization])
    if name == DENSE:
        return Choice()
    weakening = float(params[WEAKENING])
    values = {
        axis.name: axis.snap(2 ** float(params[multiplier]) * axis.at(weakening), space.round_to)
        for multiplier, axis in zip(group.multipliers, group.axes[layer][name], strict=False)
    }
    return Choice(name, values)


def coordinates_of(space: Space, point: Point) -> dict[str, str | float]:
    """The coordinates closest to a point.

    The weakening is the one that makes the largest |multiplier| smallest; multipliers outside their range are
    clipped, and one that serves several axes of tied layers is the middle of what these need. Where nothing is
    clipped and no tied layers disagree, `point_at` gives the same values back.
    """
    weakening = _weakening(space, point)
    params: dict[str, str | float] = {WEAKENING: weakening} if space.groups else {}
    for group in space.groups:
        params[group.factorization] = _factorization(group, point)
        wanted = _multipliers(group, point, weakening)
        for name in group.multipliers:
            params[name] = min(max(_middle(wanted.get(name, [0.0])), -space.multiplier), space.multiplier)
    return params | penalty_coordinates(space, point)


def penalty_coordinates(space: Space, point: Point) -> dict[str, str | float]:
    """The coordinate of each penalty whose strength is searched."""
    searched = space.searched_penalties.items()
    return {name: strength.coordinate_of(point.penalties.get(name, 0.0)) for name, strength in searched}


def _weakening(space: Space, point: Point) -> float:
    """By bisection: as the weakening grows, values fall and every multiplier rises."""
    axes = [
        (axis, float(value))
        for group in space.groups
        for layer in group.layers
        for _, axis, value in group.chosen(layer, _chosen(point, layer))
    ]
    low, high = space.weakening
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _balance(axes, middle) > 0 else (middle, high)
    return low if axes else space.weakening[0]


def _balance(axes: Iterable[tuple[AxisRange, float]], weakening: float) -> float:
    """Largest plus smallest multiplier: zero where the largest magnitude is smallest."""
    wanted = [axis.multiplier(value, weakening) for axis, value in axes]
    return 2 * _middle(wanted) if wanted else 0.0


def _middle(values: list[float]) -> float:
    low, high = max(min(values), -64.0), min(max(values), 64.0)
    return (low + high) / 2


def _chosen(point: Point, layer: str) -> Choice:
    return point.layers.get(layer, Choice())


def _factorization(group: Group, point: Point) -> str:
    names = [_chosen(point, layer).factorization for layer in group.layers]
    return next((name for name in names if name != DENSE), DENSE)


def _multipliers(group: Group, point: Point, weakening: float) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for layer in group.layers:
        for name, axis, value in group.chosen(layer, _chosen(point, layer)):
            found.setdefault(name, []).append(axis.multiplier(value, weakening))
    return found

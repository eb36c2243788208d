"""Constraints: which are broken, by how much, and what can be said before training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from optuna.distributions import CategoricalDistribution

from rank_search.errors import StudyFileError
from rank_search.options import CostModel, Group
from rank_search.point import DENSE, Bound, Outcome, Point, State
from rank_search.search.coordinates import WEAKENING, coordinates, point_at
from rank_search.search.space import Space

if TYPE_CHECKING:
    from rank_search.search.seeds import Seed

COUNTED: Final = frozenset({"params", "macs"})
"""Measurements that are known before training, because they are counted."""

_STRICT: Final = 1e-9


def check(bounds: Iterable[Bound], measurements: Mapping[str, float], dense: Mapping[str, float]) -> tuple[str, ...]:
    """A sentence for each bound that is broken; a bound on something that was not measured is broken."""
    return tuple(
        f"{bound} does not hold: {bound.name} is {measurements.get(bound.name, math.nan):g}"
        for bound in bounds
        if not bound.holds(measurements, dense)
    )


def check_counted(bounds: Iterable[Bound], counted: Mapping[str, float], dense: Mapping[str, float]) -> Outcome | None:
    """The outcome of a point whose counted costs break a bound; None where it is worth training.

    >>> bounds = [Bound.parse("macs <= 0.5 * dense")]
    >>> check_counted(bounds, {"params": 5, "macs": 90}, {"params": 10, "macs": 100}).reason
    'macs <= 0.5 * dense does not hold: macs is 90'
    """
    broken = check((bound for bound in bounds if bound.name in COUNTED), counted, dense)
    return Outcome(State.INFEASIBLE, dict(counted), "; ".join(broken)) if broken else None


def upper_limits(bounds: Iterable[Bound], dense: Mapping[str, float]) -> dict[str, float]:
    """The most that each counted cost may be, of those that are bounded from above.

    >>> upper_limits([Bound.parse("macs <= 0.5 * dense"), Bound.parse("macs < 40")], {"macs": 100})
    {'macs': 40.0}
    """
    found: dict[str, float] = {}
    for bound in bounds:
        if bound.name in COUNTED and bound.sign.startswith("<"):
            limit = bound.absolute(dense)
            found[bound.name] = min(limit, found.get(bound.name, limit))
    return found


def require_possible(bounds: Iterable[Bound], space: Space, costs: CostModel, seeds: Sequence[Seed]) -> None:
    """Refuse a bound on counted costs that no seed point and no point of the space keeps.

    Raises:
        StudyFileError: there is one; the message has the least and the most that can be had.
    """
    counted = [bound for bound in bounds if bound.name in COUNTED]
    if not counted:
        return
    dense = costs.dense
    reach = [dense, least_costs(space, costs), *(costs.cost(seed.point) for seed in seeds)]
    for bound in counted:
        if not any(bound.holds(cost, dense) for cost in reach):
            found = [cost[bound.name] for cost in reach]
            hint = "" if bound.of_dense else f" As a share of the dense model's it is '{bound} * dense'."
            raise StudyFileError(
                f"Some point must keep each constraint; none keeps '{bound}' ([search] constraints): {bound.name} "
                f"goes from {min(found):,} to {max(found):,}, the dense model has {dense[bound.name]:,}.{hint}"
            )


def least_costs(space: Space, costs: CostModel) -> dict[str, float]:
    """The least of each counted cost that the space has, each for itself.

    Layers add up, so the cheapest choice of each group is looked for alone.
    """
    least = dict(dense := costs.dense)
    for group in space.groups:
        found = [costs.cost(point) for point in _extremes(space, costs, group)]
        for name in least:
            least[name] -= dense[name] - min(cost[name] for cost in found)
    return least


def _extremes(space: Space, costs: CostModel, group: Group) -> Iterator[Point]:
    """Points that are dense but for one group: each of its choices, with all axes at one end of their reach."""
    for end in ("low", "high"):
        params = {
            name: DENSE if isinstance(each, CategoricalDistribution) else getattr(each, end)
            for name, each in coordinates(space).items()
        }
        params[WEAKENING] = space.weakening[end == "low"]
        for choice in group.choices:
            yield point_at(space, costs, {**params, group.factorization: choice})


def violations(
    bounds: Iterable[Bound], measurements: Mapping[str, float], dense: Mapping[str, float]
) -> dict[str, float]:
    """How far each bound is broken, relative to its limit; not above 0 where it holds.

    Edge cases: what was not measured counts as 0 (nothing is known), NaN and infinity as 1; relative to 1 where
    the limit is 0; equality with a strict bound counts as just broken.
    """
    return {str(bound): _violation(bound, measurements, dense) for bound in bounds}


def _violation(bound: Bound, measurements: Mapping[str, float], dense: Mapping[str, float]) -> float:
    if bound.name not in measurements:
        return 0.0
    value, limit = measurements[bound.name], bound.absolute(dense)
    holds = bound.holds(measurements, dense)
    if not math.isfinite(value):
        return -1.0 if holds else 1.0
    excess = (value - limit) / (abs(limit) or 1.0) * (1 if bound.sign.startswith("<") else -1)
    return min(excess, 0.0) if holds else max(excess, _STRICT)

"""Seed points: the dense model, allocations along the front of the layers' errors, ladders, and the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rank_search.errors import LayerError, StudyFileError
from rank_search.layers import matches
from rank_search.options import (
    AxisRange,
    CostModel,
    Group,
    HullPoint,
    Option,
    OptionTable,
    allocate,
    by_gain,
    mean_shares,
    minds_costs,
    normalized,
    spread,
    sweep,
)
from rank_search.point import AxisValue, Choice, Point
from rank_search.search.constraints import check_counted, upper_limits
from rank_search.search.coordinates import without_frames
from rank_search.search.samplers import CONTINUOUS
from rank_search.search.settings import LayerSetting, SearchSettings, SeedPointSettings
from rank_search.search.space import Space
from rank_search.search.strength import Strength

WORST_MEAN_ERROR: Final = 0.4
"""Of the layers' outputs: beyond, an allocation is not worth a trial."""

Rule = Callable[[AxisRange], float]


@dataclass(frozen=True)
class Seed:
    """A point to ask before the sampler takes over, and the label by which its trial is known."""

    label: str
    point: Point


def seed_points(
    space: Space,
    costs: CostModel,
    settings: SearchSettings,
    options: OptionTable | None = None,
    continuous: Sequence[Point] = (),
) -> list[Seed]:
    """All seed points in the order they are asked; of equal points only the first.

    Dense comes first, without penalties (where these are searched), and once more with the entropy penalty alone where
    that is searched: quantization with full weights. Then allocations, if the options of the layers are known: points
    of the exact front of Σ error against Σ cost (see `lagrangian_front`), those first that add most to the hypervolume
    of these two. Then continuous ranks, if there are any, in the order given, as far as they keep the bounds on counted
    costs. Then the ladders, each with the first factorization that applies to a group and with penalties at the
    geometric middle of their ranges; for every further factorization one cut at the middle rung; then the study file's
    own points.

    Raises:
        StudyFileError: a point of the study file does not fit the space.
    """
    first: dict[str, Seed] = {}
    for seed in _candidates(space, costs, settings, options, continuous):
        first.setdefault(seed.point.key, seed)
    return list(first.values())


def _candidates(
    space: Space,
    costs: CostModel,
    settings: SearchSettings,
    options: OptionTable | None,
    continuous: Sequence[Point],
) -> Iterator[Seed]:
    ladders = settings.seeds
    if ladders.dense:
        yield from _dense(space)
    if options is not None and ladders.allocations and settings.sampler != CONTINUOUS:
        yield from _allocated(space, options, settings)
    for found in continuous:
        yield from _continuous(space, costs, settings, found)
    for fraction in ladders.fractions:
        yield _uniform(space, costs, f"fraction {fraction:g}", _cut(fraction))
    for weakening in ladders.weakenings:
        yield _uniform(space, costs, f"weakening {weakening:g}", _weakened(weakening))
    if ladders.fractions:
        fraction = sorted(ladders.fractions)[len(ladders.fractions) // 2]
        for name in _factorizations(space):
            yield _uniform(space, costs, f"fraction {fraction:g} {name}", _cut(fraction), name)
    for point in ladders.points:
        yield Seed(f"point {point.name}", _named(space, costs, point))


def _dense(space: Space) -> Iterator[Seed]:
    layers = {layer: Choice() for group in space.groups for layer in group.layers}
    weakest = {name: strength.weakest for name, strength in space.penalties.items()}
    yield Seed("dense", Point(layers, without_frames(layers, weakest)))
    if "entropy" in space.searched_penalties:
        quantized = {**weakest, "entropy": space.penalties["entropy"].middle}
        yield Seed("dense entropy", Point(layers, without_frames(layers, quantized)))


def _allocated(space: Space, options: OptionTable, settings: SearchSettings) -> Iterator[Seed]:
    """Points along the front of errors and costs, as far as they keep the bounds on counted costs."""
    names = [each.name for each in settings.objectives]
    shares = mean_shares(names)
    most = WORST_MEAN_ERROR * len(space.groups)
    fixed = sum(shares[name] * options.rest[name] / max(1, options.dense[name]) for name in shares)

    def chosen(corner: HullPoint) -> tuple[Option, ...]:
        return options.chosen(corner.chosen)

    first = list(_at_the_limits(space, options, settings))
    yield from first
    if upper_limits(settings.constraints, options.dense) and not minds_costs(names):
        return  # what costs less is worth nothing then
    worth = [
        each
        for each in sweep(options, shares)
        if each.error <= most
        and check_counted(settings.constraints, options.total(chosen(each)), options.dense) is None
    ]
    if not worth:
        return
    some = spread(worth, settings.seeds.allocations - len(first), fixed)
    for corner in by_gain(some, worth[0].cost, most):
        layers = {layer: choice for option in chosen(corner) for layer, choice in option.choices.items()}
        yield Seed(f"allocation {corner.cost + fixed:.2g}", Point(layers, _middle_penalties(space, layers)))


def _at_the_limits(space: Space, options: OptionTable, settings: SearchSettings) -> Iterator[Seed]:
    """The allocation of least error within the bounds on counted costs, if there are any and it keeps them."""
    limits = upper_limits(settings.constraints, options.dense)
    if not limits:
        return
    try:
        found = allocate(options, params=limits.get("params"), macs=limits.get("macs"))
    except LayerError:
        return
    layers = dict(found.layers)
    if check_counted(settings.constraints, {"params": found.params, "macs": found.macs}, options.dense) is None:
        yield Seed("allocation within bounds", Point(layers, _middle_penalties(space, layers)))


def _continuous(space: Space, costs: CostModel, settings: SearchSettings, point: Point) -> Iterator[Seed]:
    """The point, if it keeps the bounds on counted costs; its label is its cost."""
    layers = {layer: normalized(costs, layer, choice) for layer, choice in point.layers.items()}
    counted, dense = costs.cost(Point(layers)), costs.dense
    if check_counted(settings.constraints, counted, dense) is None:
        shares = mean_shares([each.name for each in settings.objectives])
        cost = sum(shares[name] * counted[name] / max(1, dense[name]) for name in shares)
        yield Seed(f"continuous {cost:.4g}", Point(layers, _middle_penalties(space, layers)))


def _cut(fraction: float) -> Rule:
    return lambda axis: fraction * axis.high


def _weakened(weakening: float) -> Rule:
    return lambda axis: axis.at(weakening)


def _factorizations(space: Space) -> list[str]:
    """Every factorization of any group, once, in order of preference."""
    return list(dict.fromkeys(name for group in space.groups for name in group.factorizations))


def _uniform(space: Space, costs: CostModel, label: str, rule: Rule, prefer: str = "") -> Seed:
    """One rule for every axis; `prefer` is taken where it applies, the first factorization elsewhere."""
    layers: dict[str, Choice] = {}
    for group in space.groups:
        name = prefer if prefer in group.factorizations else group.factorizations[0]
        for layer, by_name in group.axes.items():
            values = {axis.name: axis.snap(rule(axis), space.round_to) for axis in by_name[name]}
            layers[layer] = normalized(costs, layer, Choice(name, values))
    return Seed(label, Point(layers, _middle_penalties(space, layers)))


def _middle_penalties(space: Space, layers: Mapping[str, Choice]) -> dict[str, float]:
    return without_frames(layers, {name: strength.middle for name, strength in space.penalties.items()})


def _named(space: Space, costs: CostModel, settings: SeedPointSettings) -> Point:
    named = named_choices(space, settings)
    _check_pools(costs, named, settings.name)
    layers = {layer: normalized(costs, layer, choice) for layer, choice in named.items()}
    penalties = _middle_penalties(space, layers)
    for name in ("orthogonality", "entropy", "sparsity"):
        if (strength := getattr(settings, name)) is not None:
            penalties |= _allowed(space, name, strength, settings.name)
    return Point(layers, without_frames(layers, penalties))


def _check_pools(costs: CostModel, named: Mapping[str, Choice], where: str) -> None:
    for layer, choice in named.items():
        if apart := [other for other in costs.together(layer, choice) if named[other] != choice]:
            raise StudyFileError(
                f"In [search.seeds] point {where!r}, layer {layer!r} is {choice.factorization}, and {', '.join(apart)} "
                "not, or with other values. It shares factors between tied layers, so that all of them take it with "
                "the same values, or none does."
            )


def named_choices(space: Space, settings: SeedPointSettings) -> dict[str, Choice]:
    """What a point of the study file says for each layer, whether it saves anything or not.

    Raises:
        StudyFileError: it does not fit the space.
    """
    _check_globs(space, settings)
    layers: dict[str, Choice] = {}
    for group in space.groups:
        for layer in group.layers:
            pattern = next((glob for glob in settings.layers if matches(layer, glob)), None)
            chosen = "dense" if pattern is None else settings.layers[pattern]
            layers[layer] = _choice(group, layer, chosen, settings.name)
    return layers


def _check_globs(space: Space, settings: SeedPointSettings) -> None:
    layers = [layer for group in space.groups for layer in group.layers]
    for pattern in settings.layers:
        if not any(matches(layer, pattern) for layer in layers):
            raise StudyFileError(
                "Each glob of a seed point matches a layer that is searched; in [search.seeds] point "
                f"{settings.name!r}, {pattern!r} matches none of: {', '.join(layers)}."
            )


def _choice(group: Group, layer: str, chosen: LayerSetting, where: str) -> Choice:
    if isinstance(chosen, str):
        return Choice()
    name = str(chosen["factorization"])
    if name not in group.factorizations:
        raise StudyFileError(
            f"A seed point chooses what the space has; in [search.seeds] point {where!r}, layer {layer!r} "
            f"asks for {name!r}, and may be: {', '.join(group.choices)}."
        )
    ranges = group.axes[layer][name]
    given = {axis: value for axis, value in chosen.items() if axis != "factorization"}
    if set(given) != {axis.name for axis in ranges}:
        raise StudyFileError(
            f"A seed point names every axis; in [search.seeds] point {where!r}, {name} for layer {layer!r} has "
            f"the axes {', '.join(axis.name for axis in ranges)}; found: {', '.join(given) or 'none'}."
        )
    return Choice(name, {axis.name: _value(axis, given[axis.name], layer, where) for axis in ranges})


def _value(axis: AxisRange, value: str | float, layer: str, where: str) -> AxisValue:
    exact = float(value)
    if not axis.low <= exact <= axis.high or (axis.integer and not exact.is_integer()):
        kind = "a whole number" if axis.integer else "a number"
        raise StudyFileError(
            f"{axis.name} of layer {layer!r} is {kind} from {axis.low:g} to {axis.high:g}; "
            f"in [search.seeds] point {where!r} it is {value}."
        )
    return int(exact) if axis.integer else exact


def _allowed(space: Space, name: str, strength: float, where: str) -> dict[str, float]:
    """The strength of a penalty, nothing for one that the space does not have and that is to be off."""
    allowed = space.penalties.get(name, Strength())
    if not allowed.allows(strength):
        raise StudyFileError(
            f"The strength of {name} is {allowed} ([search] {name}); "
            f"in [search.seeds] point {where!r} it is {strength:g}."
        )
    return {name: strength} if name in space.penalties else {}

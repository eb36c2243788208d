"""Continuous ranks at one cost, or at several with one optimization each, started from that of its neighbour."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, pairwise
from typing import Any, Final, overload

from torch import nn

from rank_search.basics import Amount
from rank_search.continuous.layer_steps import CostOf, layer_paths
from rank_search.continuous.masks import STEPS, MaskSearch, RoundedRanks, blends
from rank_search.continuous.teacher import Distance, Teacher
from rank_search.errors import LayerError
from rank_search.options import (
    Allocation,
    CostShares,
    Option,
    OptionTable,
    allocation_of,
    mean_shares,
    price_of,
    sweep,
)
from rank_search.tasks import inputs_in

POINTS: Final = 10
"""Costs of a front that are spread evenly; further ones lie in the gaps."""

LOOKED_AT: Final = 8
"""Batches that the outputs are compared on, at most."""

WORST_MEAN_ERROR: Final = 0.4
"""Of the layers' outputs: allocations beyond are as good as lost, and no cost is held there."""

Limit = float | int | str

Progress = Callable[[int, int, RoundedRanks], None]
"""Told the number of costs that are done, how many there are, and what the last one gave."""


@overload
def continuous_ranks(
    model: nn.Module,
    table: OptionTable,
    batches: Iterable[Any],
    *,
    points: int = ...,
    distance: Distance = ...,
    norms: bool = ...,
    steps: int = ...,
) -> tuple[Allocation, ...]: ...
@overload
def continuous_ranks(
    model: nn.Module,
    table: OptionTable,
    batches: Iterable[Any],
    *,
    params: Limit | None = ...,
    macs: Limit | None = ...,
    distance: Distance = ...,
    norms: bool = ...,
    steps: int = ...,
) -> Allocation: ...
def continuous_ranks(
    model: nn.Module,
    table: OptionTable,
    batches: Iterable[Any],
    *,
    params: Limit | None = None,
    macs: Limit | None = None,
    points: int = POINTS,
    distance: Distance = "kl",
    norms: bool = True,
    steps: int = STEPS,
) -> Allocation | tuple[Allocation, ...]:
    """The ranks of all layers within a cost whose network stays closest to the dense one; without a bound a front.

    Ranks are relaxed to masks over what a layer gains from one option of the table to the next, and moved by the
    gradient of the distance between the network's outputs and the dense model's: one number for each layer, see
    `MaskSearch`. The relaxed cost is held meanwhile, and the result is rounded to options of the table within the
    bound. By that distance it is never behind `allocate`, whose sum of the layers' errors does not see the network. No
    label is looked at, and no weight is trained. Complexity: `steps` forwards and backwards of the dense network for
    each cost, and some forwards more; memory for a weight of each option of the table, but for forms whose fits are
    nested, such as the SVD.

    Args:
        model: the model that the table was made of; it is not changed.
        table: as `options` makes it.
        batches: inputs, or pairs of inputs and targets, in the size that batch norms take statistics of; the first
            `LOOKED_AT` of them are looked at. They should be such as the model is to be used on.
        params, macs: the most that the whole model may cost, one of them, as in `allocate`.
        points: without a bound, the costs of the front: shares of the mean of params and MACs.
        distance: `"kl"` of logits along the last dimension, or `"squared"`, relative, of any outputs.
        norms: whether batch norms take their statistics again, as `factorize` has it.
        steps: of the optimizer, for each cost.

    Returns:
        With a bound an allocation that keeps it; without one those of a front from the highest cost on, each farther
        from the dense model than the one before.

    Raises:
        LayerError: no allocation keeps the bound, or there are two.
        TaskError: there are no batches, or the model does not run on them.

    >>> import torch
    >>> from rank_search.options import options
    >>> model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    >>> table = options(model, example=torch.zeros(1, 16))
    >>> continuous_ranks(model, table, [torch.randn(8, 16)], params=0.7, steps=2).params <= 0.7 * 544
    True
    """
    teacher = Teacher.of(model, (inputs_in(each, table.fits.example) for each in islice(batches, LOOKED_AT)), distance)
    limits = {name: limit for name, limit in (("params", params), ("macs", macs)) if limit is not None}
    if len(limits) > 1:
        raise LayerError("continuous_ranks() holds one cost, and params and macs are both given. Leave one out.")
    name = next(iter(limits), "")
    shares = {each: float(each == name) for each in ("params", "macs")} if name else mean_shares([])
    search = mask_search(model, table, shares, teacher, norms, steps)
    if not name:
        found = continuous_front(search, spread_costs(table, shares, points))
        return tuple(allocation_of(table, each.chosen) for each in found)
    share = _share(name, limits[name], table.dense[name])
    (at_bound,) = _found(search, [share]) or (None,)
    if at_bound is None:
        raise LayerError(
            f"No allocation keeps {name} ≤ {share:.1%} of dense. The least that the options of this table reach is "
            f"{search.steps.least:.1%}. Ask for more, or let more layers or other factorizations be chosen (layers= of "
            "options())."
        )
    return allocation_of(table, at_bound.chosen)


def _share(name: str, limit: Limit, dense: float) -> float:
    """Of the dense model's cost."""
    if isinstance(limit, str):
        return Amount.parse(limit, name).of({name: dense}, name) / max(1, dense)
    return limit if limit <= 1 else limit / max(1, dense)


def mask_search(
    model: nn.Module, table: OptionTable, shares: CostShares, teacher: Teacher, norms: bool = True, steps: int = STEPS
) -> MaskSearch:
    """The search on the options of a table, with parameters and MACs weighed as given."""
    return MaskSearch(model, table, cost_of(table, shares), fixed_cost(table, shares), teacher, norms, steps)


def cost_of(table: OptionTable, shares: CostShares) -> CostOf:
    """The cost of an option as a share of the dense model's."""

    def cost(option: Option) -> float:
        return price_of(option, shares, table.dense)

    return cost


def fixed_cost(table: OptionTable, shares: CostShares) -> float:
    """The same of all that nothing is chosen for."""
    return sum(shares[name] * table.rest[name] / max(1, table.dense[name]) for name in ("params", "macs"))


def memory_of(table: OptionTable, shares: CostShares) -> int:
    """Bytes that the weights of all options which a `MaskSearch` lies between take, none of them being nested."""
    weights = {name: math.prod(layer.shape) for name, layer in table.fits.layers.items()}
    paths = layer_paths(table, cost_of(table, shares))
    return 4 * sum(len(path.options) * weights[layer] for path in paths for layer in path.options[0].choices)


def spread_costs(table: OptionTable, shares: CostShares, count: int, most: float = 1.0) -> list[float]:
    """So many costs of a front, as shares of the dense model's.

    The first `POINTS` fall evenly in their logarithms, from below the dense model, or from `most` on if that is less,
    to the cheapest allocation whose mean error is no more than `WORST_MEAN_ERROR`; each further one is in the middle of
    the widest gap.

    >>> from rank_search.layers import Cost
    >>> from rank_search.options import CostModel
    >>> empty = OptionTable([], CostModel({}, {}, Cost(10, 100)), lambda layer, choice: 0.0)
    >>> spread_costs(empty, {"params": 0.0, "macs": 1.0}, 2)
    [1.0, 1.0]
    """
    dearest, least = cost_ends(table, shares)
    high = min(dearest, math.log(most))
    low = min(least, high)
    even, first = min(count, POINTS), [high] if high < dearest else []
    left = max(1, even - len(first))
    found = [*first, *(high + (low - high) * step / left for step in range(1, even - len(first) + 1))]
    while len(found) < count:
        ends = sorted({high, *found}, reverse=True)
        gaps = [before - after for before, after in pairwise(ends)]
        widest = max(range(len(gaps)), key=gaps.__getitem__)
        found.append((ends[widest] + ends[widest + 1]) / 2)
    return [math.exp(each) for each in found]


def cost_ends(table: OptionTable, shares: CostShares) -> tuple[float, float]:
    """Logarithms of the highest and of the lowest cost of a front, see `spread_costs`; one sweep of the table."""
    fixed, worst = fixed_cost(table, shares), WORST_MEAN_ERROR * len(table.of)
    worth = [each.cost + fixed for each in sweep(table, shares) if each.error <= worst]
    return math.log(max(worth)), math.log(min(worth))


def continuous_front(
    search: MaskSearch, costs: Sequence[float], progress: Progress = lambda done, count, found: None
) -> tuple[RoundedRanks, ...]:
    """The closest network within each cost, from the highest cost on; each is farther away than the one before.

    A cost that another one's result beats, or that no allocation keeps, has none.
    """
    kept: list[RoundedRanks] = []
    for each in sorted(_found(search, costs, progress), key=lambda each: (each.cost, each.distance)):
        if not kept or each.distance < kept[-1].distance:
            kept.append(each)
    return tuple(reversed(kept))


def _found(
    search: MaskSearch, costs: Sequence[float], progress: Progress = lambda done, count, found: None
) -> list[RoundedRanks]:
    """For each cost, from the highest on: started from its neighbour, and compared with what that has led to."""
    found: list[RoundedRanks] = []
    start = search.unmoved
    for number, cost in enumerate(sorted(costs, reverse=True), start=1):
        moved = search.moved(cost, start)
        best = search.closest(cost, [*blends(moved), start])
        if best is not None:
            found.append(best)
            start = best.importance
            progress(number, len(costs), best)
    return found

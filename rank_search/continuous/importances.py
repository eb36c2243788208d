"""How much the errors of each group of layers count: learned from the network's outputs, at several costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from statistics import fmean
from typing import Any, Final

import torch
from torch import nn

from rank_search.continuous.masks import Importance, MaskSearch
from rank_search.continuous.ranks import LOOKED_AT, cost_ends, mask_search
from rank_search.continuous.teacher import Distance, Teacher
from rank_search.options import CostShares, OptionTable, mean_shares
from rank_search.tasks import inputs_in

COSTS: Final = 3
"""At which importances are learned: those of one cost depend on it, and on the batches that were looked at."""

IMPORTANCE_STEPS: Final = 20
"""Of the optimizer, at each cost: as good as twice as many (docs/benchmarks/search.md)."""

Progress = Callable[[int, int, float], None]
"""Told the number of costs that are done, how many there are, and the last one."""


def learn_importances(
    model: nn.Module,
    table: OptionTable,
    batches: Iterable[Any],
    *,
    objectives: Sequence[str] = (),
    costs: int = COSTS,
    distance: Distance = "kl",
    norms: bool = True,
    steps: int = IMPORTANCE_STEPS,
) -> OptionTable:
    """The table with the errors of each group of layers times how much they count for the network's outputs.

    Symbols: at each of some costs the importances w_g of all groups g are moved by the gradient of the distance between
    the relaxed network's outputs and the dense model's, from those of the cost before on (see `MaskSearch`); the errors
    of g are multiplied by exp(mean of w_g over the costs). The allocations of such a table see how layers act together,
    at any cost. No label is looked at, and no weight is trained. Complexity: `costs` × `steps` forwards and backwards
    of the dense network; memory for a weight of each option of the table, but for forms whose fits are nested, such as
    the SVD.

    Args:
        model: the model that the table was made of; it is not changed.
        table: as `options` makes it.
        batches: inputs, or pairs of inputs and targets, in the size that batch norms take statistics of; the first
            `LOOKED_AT` of them are looked at.
        objectives: names of objectives, of which `params` and `macs` say what a cost is; both, if none of them does.
        costs: how many; they are spread over the front of allocations. 0 leaves the table as it is.
        distance: `"kl"` of logits along the last dimension, or `"squared"`, relative, of any outputs.
        norms: whether batch norms take their statistics again, as `factorize` has it.
        steps: of the optimizer, for each cost.

    Raises:
        TaskError: there are no batches, or the model does not run on them.

    >>> from rank_search.options import options
    >>> model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    >>> table = options(model, example=torch.zeros(1, 16))
    >>> learned = learn_importances(model, table, [torch.randn(8, 16)], costs=1, steps=2)
    >>> [len(each) for each in learned.of.values()] == [len(each) for each in table.of.values()]
    True
    """
    if not costs:
        return table
    shares = mean_shares(objectives)
    teacher = Teacher.of(model, (inputs_in(each, table.fits.example) for each in islice(batches, LOOKED_AT)), distance)
    search = mask_search(model, table, shares, teacher, norms, steps)
    return with_importances(table, mean_importance(search, middle_costs(table, shares, costs)))


def middle_costs(table: OptionTable, shares: CostShares, count: int, most: float = 1.0) -> list[float]:
    """The middles of so many equal parts of the front's costs, none above `most`, in their logarithms; highest first.

    >>> from rank_search.layers import Cost
    >>> from rank_search.options import CostModel
    >>> empty = OptionTable([], CostModel({}, {}, Cost(10, 100)), lambda layer, choice: 0.0)
    >>> middle_costs(empty, {"params": 0.0, "macs": 1.0}, 2)
    [1.0, 1.0]
    """
    dearest, least = cost_ends(table, shares)
    high = min(dearest, math.log(most))
    low = min(least, high)
    return [math.exp(high + (low - high) * (part + 0.5) / count) for part in range(count)]


def mean_importance(
    search: MaskSearch, costs: Sequence[float], progress: Progress = lambda done, count, cost: None
) -> Importance:
    """The mean of the importances learned at these costs, one after another."""
    found = [search.unmoved]
    for cost in costs:
        found.append(search.moved(cost, found[-1]))
        progress(len(found) - 1, len(costs), cost)
    return torch.stack(found[1:] or found).mean(dim=0)


def with_importances(table: OptionTable, importance: Importance) -> OptionTable:
    """The table with the errors of each group g times exp(w_g), divided by the mean of these factors over layers."""
    before = table.fits.shares
    found: dict[str, float] = {}
    for options, logarithm in zip(table.of.values(), importance.tolist(), strict=True):
        found |= {layer: before.get(layer, 1.0) * math.exp(logarithm) for layer in options[0].choices}
    mean = fmean(found.values()) / fmean(before.get(layer, 1.0) for layer in found) if found else 1.0
    return table.with_shares({**before, **{layer: share / mean for layer, share in found.items()}})

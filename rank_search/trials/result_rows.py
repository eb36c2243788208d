"""Where a trained model is cut: a row of smaller models, each the exact allocation of a cost over its layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from rank_search.basics import Float
from rank_search.layers import Axis, Cost, Factorization, Kept, adds_up, axes_of, cut_form, layer_cost, owned
from rank_search.options import error_between, pick, relative_error
from rank_search.point import Choice
from rank_search.trials.context import TrialContext, build
from rank_search.trials.settling import Settled, Whole, cut, forms, whole_modes

SMALLEST: Final = 0.1
"""What the last model of a row costs at least, as a share of the trial's."""

VALUES: Final = (32, 10, 5)
"""How many values of each axis are looked at, of forms of one axis, of two, and of more."""


@dataclass(frozen=True)
class _Part:
    """What may be left of a layer: components by axis, what it costs then, and how far its outputs are off."""

    kept: Kept
    cost: Cost
    error: float


def row_of(context: TrialContext, trained: Settled, measured: Mapping[str, float]) -> Iterator[Settled]:
    """The trained model, cut to `context.row` costs between its own and a tenth of that, evenly in their logarithms.

    Costs are those that are asked for (`context.judged`), the mean of the shares of both where both are. Which
    components stay is the exact allocation: the errors of the layers' outputs, between the trained weight and what is
    left of it under the second moment of the layer's inputs, have the least sum. Of each axis the first components
    stay, or those of the largest norm, whichever are closer. What cannot be cut is left as it is; where two costs
    lead to one model, there is one.

    Args:
        measured: of the trained model.
    """
    model = build(context.dense, trained.point, context.layers, context.plugins, trained.state)
    parts = {name: found for name, found in _parts(context, trained, model).items() if len(found) > 1}
    totals = {cost: measured[cost] for cost in context.judged}
    shares = [np.array([[_share(each.cost, totals)] for each in found]) for found in parts.values()]
    errors = [np.array([each.error for each in found]) for found in parts.values()]
    rest = 1.0 - sum(float(each[0, 0]) for each in shares)  # the first part of a layer is all of it
    seen = {tuple(0 for _ in parts)}
    for target in _targets(context.row, rest + sum(float(each.min()) for each in shares)):
        picked = pick(shares, errors, np.array([target - rest]))
        if picked is not None and picked.chosen not in seen:
            seen.add(picked.chosen)
            kept = {name: found[place].kept for (name, found), place in zip(parts.items(), picked.chosen, strict=True)}
            yield cut(model, trained, {name: each for name, each in kept.items() if each})


def _targets(count: int, least: float) -> Iterator[float]:
    """So many costs, as shares of the whole, down to the least that can be reached, but not below `SMALLEST`."""
    last = max(least, SMALLEST)
    yield from (last ** (place / count) for place in range(1, count + 1) if last < 1)


def _share(cost: Cost, totals: Mapping[str, float]) -> float:
    own = {"params": float(cost.params), "macs": float(cost.macs)}
    return sum(own[name] / total for name, total in totals.items() if total) / len(totals)


@torch.no_grad()
def _parts(context: TrialContext, trained: Settled, model: nn.Module) -> Mapping[str, Sequence[_Part]]:
    """What may be left of each factorized layer, by its name: all of it first."""
    found = {}
    for form, names in forms(model).items():
        layer = next((name for name in names if name in trained.point.layers), None)
        if layer is not None:
            whole = whole_modes(names[0], form, trained.grids or {})
            found[layer] = list(_parts_of(context, layer, form, whole))
    return found


def _parts_of(context: TrialContext, layer: str, form: Factorization, whole: Whole) -> Iterator[_Part]:
    weight, bases = form.dense(), context.bases(layer)
    total = error_between(weight, torch.zeros_like(weight), bases)
    yield _Part({}, _cost(form), 0.0)
    carried = {axis.name: _carried(form, axis.name) for axis in _owning(form)}
    for values in _smaller_values(form, context.round_to):
        found = [
            (relative_error(error_between(weight, small.form.dense(), bases), total), kept, small.form)
            for kept in _orders(form, values, carried)
            if (small := cut_form(form, kept, whole)) is not None
        ]
        error, kept, smaller = min(found, key=lambda each: each[0], default=(math.inf, {}, form))
        if math.isfinite(error):
            yield _Part(kept, _cost(smaller), error)


def _cost(form: Factorization) -> Cost:
    return layer_cost(form.layer, type(form), Choice(type(form).__name__, form.values))


def _smaller_values(form: Factorization, round_to: int) -> Iterator[Mapping[str, int]]:
    """Values of the axes that own components, none of them larger than they are, and one smaller."""
    axes = _owning(form)
    now = {axis.name: int(form.values[axis.name]) for axis in axes}
    count = VALUES[min(len(axes), len(VALUES)) - 1]
    ladders = [_ladder(axis, now[axis.name], round_to, count) for axis in axes]
    for values in itertools.product(*ladders):
        named = dict(zip(now, values, strict=True))
        if named != now:
            yield named


def _owning(form: Factorization) -> Sequence[Axis]:
    axes = (axis for axis in axes_of(type(form), form.layer) if axis.integer)
    return [axis for axis in axes if owned(form, axis.name) and adds_up(form, axis.name)]


def _ladder(axis: Axis, value: int, round_to: int, count: int) -> Sequence[int]:
    """At most so many values from this one down to the least, evenly in their logarithms."""
    least = round_to * math.ceil(max(1, axis.low) / round_to)
    if least >= value:
        return [value]
    wanted = (value * (least / value) ** (place / (count - 1)) for place in range(count))
    rounded = {round_to * max(least // round_to, round(each / round_to)) for each in wanted}
    return sorted({value} | {each for each in rounded if each < value}, reverse=True)


def _orders(form: Factorization, values: Mapping[str, int], carried: Mapping[str, Tensor]) -> Iterator[Kept]:
    """So many components of each axis: the first ones, and those that carry the most, where these are others."""
    smaller = {axis: value for axis, value in values.items() if value < form.values[axis]}
    first = {axis: torch.arange(value) for axis, value in smaller.items()}
    most = {axis: carried[axis].topk(value).indices.sort().values.cpu() for axis, value in smaller.items()}
    yield first
    if any(not torch.equal(first[axis], most[axis]) for axis in smaller):
        yield most


def _carried(form: Factorization, axis: str) -> Float[Tensor, " value"]:
    """The norm of each component as a product: the sum of the logarithms of the norms of its slices."""
    value = int(form.values[axis])
    norms = [
        factor.detach().float().movedim(mode, 0).flatten(1).square().sum(1).view(-1, value).sum(0).log()
        for factor, mode in owned(form, axis)
    ]
    return torch.stack(norms).sum(0)

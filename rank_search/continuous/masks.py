"""Ranks of all layers at once, moved by the gradient of the outputs' distance, at a cost that is held."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from torch import Tensor, nn

from rank_search.basics import Float
from rank_search.continuous.layer_steps import CostOf, Steps, layer_paths
from rank_search.continuous.relaxed import RelaxedLayer, relaxed_layer, relaxed_network, weights_between
from rank_search.continuous.teacher import Teacher, on_batch_statistics
from rank_search.errors import TaskError
from rank_search.layers import factorize
from rank_search.options import Option, OptionTable, pick
from rank_search.point import Point

STEPS: Final = 40
"""Of the optimizer, on one batch each."""

RATE: Final = 0.1
"""Of Adam, on importances, which are logarithms; it falls to zero as the square root of what is left."""

TEMPERATURES: Final = (0.5, 0.2)
"""At the start and at the end, in natural logarithms of a price."""

REACH: Final = 0.5
"""How far an importance may go from the mean: errors of a layer count up to √e times as much, or as little."""

BLENDS: Final = (0.0, 0.5, 1.0)
"""Shares of the importances that are rounded and compared; 0 is the exact allocation."""

Importance = Float[Tensor, " groups"]


@final
@dataclass(frozen=True)
class RoundedRanks:
    """An option for each group, within a cost.

    Attributes:
        chosen: of each group, in the order of the table.
        cost: of the whole model, as a share of the dense one's.
        distance: of its outputs from the dense model's, as it is fitted.
        importance: that led to it.
    """

    chosen: tuple[Option, ...]
    cost: float
    distance: float
    importance: Importance


@final
class MaskSearch:
    """Importances of the groups' errors, learned at one cost after another.

    Symbols: see `Steps`. The network runs with the weights W(m) of all layers at once (see `weights_between`), where
    the masks m follow from the importances w and from the price λ that holds the relaxed cost. w is moved by Adam along
    the gradient of the distance between its outputs and the dense model's. In the end w is rounded: the exact
    allocation within the cost, with the errors of each group times exp(w). Where the importances are 0, that is the
    exact allocation as it is; of this, of w and of what lies between the closest is taken, by the same distance.

    Args:
        model: the dense model; it is not changed.
        table: what each group of its layers may become.
        cost: of an option.
        fixed: the cost of all that nothing is chosen for.
        teacher: the dense model's outputs.
        norms: whether batch norms take their statistics again.
        steps: of the optimizer, for one cost.
    """

    def __init__(
        self,
        model: nn.Module,
        table: OptionTable,
        cost: CostOf,
        fixed: float,
        teacher: Teacher,
        norms: bool = True,
        steps: int = STEPS,
    ) -> None:
        self._model, self._table, self._teacher = model, table, teacher
        self._norms, self._count, self._fixed = norms, steps, fixed
        paths = layer_paths(table, cost)
        self.steps = Steps(paths, fixed)
        self._costs = [np.array([[cost(each)] for each in options]) for options in table.of.values()]
        self._errors = [np.array([each.error for each in options]) for options in table.of.values()]
        self._layers = [tuple(path.options[0].choices) for path in paths]
        self._network = relaxed_network(model, table, [name for names in self._layers for name in names])
        for path, names in zip(paths, self._layers, strict=True):
            for name in names:
                relaxed = relaxed_layer(self._network, name)
                relaxed.weight_of = weights_between(table, name, [each.choices[name] for each in path.options])
        self._known: dict[str, float] = {}

    @property
    def unmoved(self) -> Importance:
        """Zeros: every group's errors count as they are."""
        return torch.zeros(len(self._layers), dtype=torch.float64)

    def moved(self, cost: float, start: Importance) -> Importance:
        """The importances after some steps at a cost, from these on.

        A step whose gradient is not finite ends it; where no group has a choice, nothing moves.

        Raises:
            TaskError: the outputs have no gradient.
        """
        if not sum(self.steps.counts):
            return start
        importance = start.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([importance], lr=RATE)
        with on_batch_statistics(self._network, self._norms):
            for step in range(self._count):
                left = 1 - step / self._count
                optimizer.param_groups[0]["lr"] = RATE * math.sqrt(left)
                distance = self._distance(importance, cost, _temperature(1 - left), step)
                gradient = _gradient(distance, importance)
                if not bool(gradient.isfinite().all()):
                    break
                importance.grad = gradient
                optimizer.step()
                with torch.no_grad():
                    importance.sub_(importance.mean()).clamp_(-REACH, REACH)
        return importance.detach()

    def _distance(self, importance: Importance, cost: float, temperature: float, number: int) -> Tensor:
        """Of the relaxed network's outputs on a batch."""
        price = self.steps.price(importance, temperature, cost)
        masks = torch.split(self.steps.masks(importance, price, temperature), list(self.steps.counts))
        for relaxed, each in self._relaxed(masks):
            relaxed.masks = each
        return self._teacher.loss(self._network, number)

    def _relaxed(self, masks: Sequence[Tensor]) -> Iterator[tuple[RelaxedLayer, Tensor]]:
        for names, each in zip(self._layers, masks, strict=True):
            for name in names:
                yield relaxed_layer(self._network, name), each

    def rounded(self, cost: float, importance: Importance) -> RoundedRanks | None:
        """The exact allocation within a cost, with the errors of each group times exp(w); None where none keeps it."""
        errors = [each * math.exp(float(w)) for each, w in zip(self._errors, importance, strict=True)]
        found = pick(self._costs, errors, np.array([cost - self._fixed]))
        if found is None:
            return None
        chosen = self._table.chosen(found.chosen)
        spent = sum(float(costs[place, 0]) for costs, place in zip(self._costs, found.chosen, strict=True))
        return RoundedRanks(chosen, self._fixed + spent, self.distance(chosen), importance)

    def closest(self, cost: float, importances: Sequence[Importance]) -> RoundedRanks | None:
        """The one of these, rounded, whose outputs are the closest to the dense model's; the first of equal ones."""
        found = [self.rounded(cost, each) for each in importances]
        return min((each for each in found if each is not None), key=lambda each: each.distance, default=None)

    def distance(self, chosen: Sequence[Option]) -> float:
        """Of the outputs from the dense model's, with these options fitted to the weights; NaN counts as infinite."""
        point = Point({layer: choice for option in chosen for layer, choice in option.choices.items()})
        if point.key not in self._known:
            fits = self._table.fits
            made = factorize(self._model, point, fits.layers, fits.plugins, fits.bases)
            with on_batch_statistics(made, self._norms):
                found = self._teacher.mean(made)
            self._known[point.key] = found if math.isfinite(found) else math.inf
        return self._known[point.key]


def _gradient(distance: Tensor, importance: Importance) -> Tensor:
    found = torch.autograd.grad(distance, importance, allow_unused=True)[0] if distance.requires_grad else None
    if found is None:
        raise TaskError(
            "The network's outputs have no gradient in the weights of its layers. Ranks and importances are learned by "
            "it: take no_grad, detach() and rounding out of its forward, or do without."
        )
    return found


def _temperature(share: float) -> float:
    """After a share of the steps; its logarithm falls evenly."""
    wide, narrow = TEMPERATURES
    return math.exp((1 - share) * math.log(wide) + share * math.log(narrow))


def blends(importance: Importance) -> list[Importance]:
    """The importances in part, none of them first."""
    return [share * importance for share in BLENDS]

"""What a layer becomes as a unit of cost gets dearer: corners of its hull, and masks over the steps between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from rank_search.basics import Float
from rank_search.options import Option, OptionTable, lower_hull

BISECTIONS: Final = 60
SATURATED: Final = 40.0
"""A sigmoid of more is 1 in double precision."""

CostOf = Callable[[Option], float]
"""The cost of an option as a share of the dense model's."""


@dataclass(frozen=True)
class LayerPath:
    """The options of a group on the lower convex hull of error against cost, from the cheapest on.

    Attributes:
        options: its corners; costs grow and errors fall.
        costs: of these.
        prices: ln of the error that each step to the next corner saves for each unit of cost; they fall.
    """

    options: tuple[Option, ...]
    costs: tuple[float, ...]
    prices: tuple[float, ...]


def layer_paths(table: OptionTable, cost: CostOf) -> tuple[LayerPath, ...]:
    """The path of each group, in the order of the table.

    >>> from rank_search.layers import Cost
    >>> from rank_search.options import CostModel
    >>> layer_paths(OptionTable([], CostModel({}, {}, Cost(10, 100)), lambda layer, choice: 0.0), lambda option: 0.0)
    ()
    """
    return tuple(_path(options, cost) for options in table.of.values())


def _path(options: Sequence[Option], cost: CostOf) -> LayerPath:
    places = lower_hull([cost(each) for each in options], [each.error for each in options])
    corners = tuple(options[place] for place in reversed(places))
    costs = [cost(each) for each in corners]
    errors = torch.tensor([each.error for each in corners], dtype=torch.float64)
    saved = -errors.diff() / torch.tensor(costs, dtype=torch.float64).diff()
    return LayerPath(corners, tuple(costs), tuple(saved.log().tolist()))


@final
class Steps:
    """The steps of all paths, with a mask for each: how far it is taken.

    Symbols: of group l the steps i have the prices p_li, which fall, and the costs Δc_li. With the importance w_l of
    the group and the logarithm λ of a price of cost the masks are m_li = σ((ln p_li + w_l − λ)/τ), and the relaxed cost
    is c₀ + Σ m_li·Δc_li. As the temperature τ goes to 0, each group takes the steps that are worth more than that
    price: it is the allocation for it with the errors of group l times exp(w_l), see `lagrangian_front`.

    Args:
        paths: of the groups.
        fixed: the cost of all that nothing is chosen for.

    Attributes:
        least, most: the cost if none is taken, and if all are.
        counts: steps of each group.
    """

    def __init__(self, paths: Sequence[LayerPath], fixed: float) -> None:
        self.counts = tuple(len(path.prices) for path in paths)
        self._group = torch.arange(len(paths)).repeat_interleave(torch.tensor(self.counts, dtype=torch.long))
        self._prices = torch.tensor([each for path in paths for each in path.prices], dtype=torch.float64)
        costs = [torch.tensor(path.costs, dtype=torch.float64).diff() for path in paths]
        self._costs = torch.cat([*costs, torch.zeros(0, dtype=torch.float64)])
        self.least = fixed + sum(path.costs[0] for path in paths)
        self.most = self.least + float(self._costs.sum())

    def masks(
        self, importance: Float[Tensor, " groups"], price: float | Float[Tensor, ""], temperature: float
    ) -> Float[Tensor, " steps"]:
        """m, for all steps of all groups, one group after the other."""
        return torch.sigmoid((self._prices + importance[self._group] - price) / temperature)

    def cost(self, masks: Float[Tensor, " steps"]) -> Float[Tensor, ""]:
        """The relaxed cost."""
        return self.least + (masks * self._costs).sum()

    def price(self, importance: Float[Tensor, " groups"], temperature: float, cost: float) -> Float[Tensor, ""]:
        """The λ at which the relaxed cost is `cost`, with its gradient: where importances move, the cost is held.

        By bisection; the gradient is that of the implicit function, −(∂c/∂w)/(∂c/∂λ). A cost beyond what the steps
        reach is met as closely as can be, without a gradient.
        """
        seen = (self._prices + importance.detach()[self._group]).detach()
        if not len(seen):
            return importance.new_zeros(())
        low, high = (float(end) for end in seen.aminmax())
        low, high = low - SATURATED * temperature, high + SATURATED * temperature
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            is_dear = self.least + float((torch.sigmoid((seen - middle) / temperature) * self._costs).sum()) > cost
            low, high = (middle, high) if is_dear else (low, middle)
        found = torch.tensor((low + high) / 2, dtype=torch.float64, requires_grad=True)
        slope = torch.autograd.grad(self.cost(self.masks(importance.detach(), found, temperature)), found)[0]
        if not bool(slope < 0):
            return found.detach()
        at = self.cost(self.masks(importance, found.detach(), temperature))
        return found.detach() - (at - at.detach()) / slope

"""Components in order: in some steps a layer is trained without those after a rank that is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from rank_search.training.component_axes import ComponentAxis, component_axes
from rank_search.training.shrinking import joint_norms


@final
class OrderedSteps:
    """Which step trains which components, drawn from torch's generator.

    In the manner of Horváth, Laskaridis, Rajput, Wang, "Maestro: Uncovering Low-Rank Structures via Trainable
    Decomposition" (ICML 2024, arXiv:2308.14929), section 3: a step draws one pair of a layer's axis and a rank below
    its value, every pair of the model as likely as another, and trains with the components after that rank at zero. So
    the first ones have to do without the others, and the weight is best cut where it is cut: at the end. What is zero
    at the end already is drawn no more (there: progressive shrinking). Unlike there, a share of the steps trains all
    components. O(n) a step, n the numbers in the factors.

    Args:
        share: of the steps that draw one, from 0 to 1.
    """

    def __init__(self, model: nn.Module, share: float) -> None:
        self._share = share
        self._axes = [axis for axis in component_axes(model) if axis.count > 1]
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}

    def cut(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """In a step that draws an axis and a rank: the parameters without the tail, by name; else what was given.

        Args:
            values: what stands for parameters already, such as rounded ones.
        """
        if not self._axes or float(torch.rand(())) >= self._share:
            return dict(values)
        pairs = [(axis, rank) for axis in self._axes for rank in range(1, _last_alive(axis))]
        return self._without_tail(values, *pairs[int(torch.randint(len(pairs), ()))]) if pairs else dict(values)

    def _without_tail(self, values: Mapping[str, Tensor], axis: ComponentAxis, rank: int) -> dict[str, Tensor]:
        found = dict(values)
        for factor, mode in axis.slices:
            name = self._names[id(factor)]
            kept = (torch.arange(factor.shape[mode], device=factor.device) % axis.count < rank).to(factor.dtype)
            found[name] = (found.get(name, factor).movedim(mode, -1) * kept).movedim(-1, mode)
        return found


@torch.no_grad()
def _last_alive(axis: ComponentAxis) -> int:
    """How many components there are up to the last one that is not zero."""
    alive = joint_norms(axis.slices, axis.count).nonzero()
    return int(alive[-1]) + 1 if len(alive) else 0

"""Components in order: in some steps a layer is trained without those after a rank that is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from rank_search.training.component_axes import ComponentAxis, component_axes


@final
class OrderedSteps:
    """Which step trains which components, drawn from torch's generator.

    In the manner of Horváth, Laskaridis, Rajput, Wang, "Maestro: Uncovering Low-Rank Structures via Trainable
    Decomposition" (ICML 2024, arXiv:2308.14929), section 3: a step draws one layer's axis and a rank below its value,
    each as likely as another, and trains with the components after that rank at zero. So the first ones have to do
    without the others, and the weight is best cut where it is cut: at the end. Unlike there, a share of the steps
    trains all components.

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
        axis = self._axes[int(torch.randint(len(self._axes), ()))]
        return self._without_tail(values, axis, int(torch.randint(1, axis.count, ())))

    def _without_tail(self, values: Mapping[str, Tensor], axis: ComponentAxis, rank: int) -> dict[str, Tensor]:
        found = dict(values)
        for factor, mode in axis.slices:
            name = self._names[id(factor)]
            kept = (torch.arange(factor.shape[mode], device=factor.device) % axis.count < rank).to(factor.dtype)
            found[name] = (found.get(name, factor).movedim(mode, -1) * kept).movedim(-1, mode)
        return found

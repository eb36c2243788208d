"""A network whose layers lie between the forms that they may become, all at once, with a gradient for how far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rank_search.basics import Float
from rank_search.layers import Axis, Bases, Factorization, Layer, factorize, layer_in, owned, pool_names
from rank_search.options import OptionTable
from rank_search.point import Choice, Point

RELAXED: Final = "relaxed"
ALIKE: Final = 1e-4
"""Relative: weights that are no farther apart are those of nested fits, to rounding."""

WeightOf = Callable[[Float[Tensor, " steps"]], Tensor]
"""The weight of a layer for the masks over its steps."""


@final
class RelaxedLayer(Factorization):
    """A layer whose weight lies between those of its options; its masks are set before each forward."""

    any_geometry = True

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (Axis(RELAXED, 0, 0),)

    def __init__(self, layer: Layer, *, relaxed: int) -> None:
        super().__init__(layer, relaxed=relaxed)
        self.weight_of: WeightOf | None = None
        self.masks: Tensor | None = None

    def fit(self, weight: Tensor, bases: Bases) -> None:
        """Nothing: its options are fitted."""

    def dense(self) -> Tensor:
        assert self.weight_of is not None
        assert self.masks is not None
        return self.weight_of(self.masks)


def relaxed_network(model: nn.Module, table: OptionTable, layers: Sequence[str]) -> nn.Module:
    """A copy of the model, in evaluation mode, in which these layers are `RelaxedLayer`s."""
    point = Point({name: Choice(RELAXED, {RELAXED: 0}) for name in layers})
    alone = {name: each for name, each in table.fits.layers.items() if name in point.layers}
    return factorize(model, point, alone, {RELAXED: RelaxedLayer}, table.fits.bases).eval()


def relaxed_layer(network: nn.Module, name: str) -> RelaxedLayer:
    """The relaxed layer of that name."""
    found = layer_in(network, name)
    assert isinstance(found, RelaxedLayer)
    return found


def weights_between(table: OptionTable, layer: str, choices: Sequence[Choice]) -> WeightOf:
    """The weight of a layer for masks over the steps from one choice to the next.

    Symbols: W_0 … W_K the weights of the choices, each exactly as it is fitted. W(m) = W_0 + Σ_k m_k·(W_k − W_{k−1}),
    so that masks of 1 and then 0 give one of them. Where all choices but dense are cuts of one fit, whose components
    are nested, the masks are over its components: its largest fit is kept, and no weight for each choice.
    """
    nested = _Nested.of(table, layer, choices)
    return _stacked([table.fits.weight(layer, choice) for choice in choices]) if nested is None else nested


def _stacked(weights: Sequence[Tensor]) -> WeightOf:
    first = weights[0]
    if len(weights) == 1:
        return lambda masks: first
    steps = torch.stack([(after - before).flatten() for before, after in pairwise(weights)])
    return lambda masks: first + (masks.to(steps) @ steps).view_as(first)


@final
class _Nested:
    """Masks over the components of the largest fit, and over the step from it to the dense weight."""

    def __init__(
        self, form: Factorization, masked: tuple[str, int], ranks: Sequence[int], dense: Tensor | None
    ) -> None:
        self._form, (self._name, mode) = form.requires_grad_(False), masked
        factor = form.get_parameter(self._name)
        blocks = factor.shape[mode] // ranks[-1]
        steps = torch.arange(len(ranks)).repeat_interleave(torch.tensor([0, *ranks]).diff())
        self._steps = steps.repeat(blocks).to(factor.device)
        self._shape = [-1 if place == mode else 1 for place in range(factor.dim())]
        self._last = len(ranks) - 1
        self._left = None if dense is None else dense - form.dense()

    @classmethod
    def of(cls, table: OptionTable, layer: str, choices: Sequence[Choice]) -> _Nested | None:
        """None where they are no cuts of one fit."""
        cut = [choice for choice in choices if not choice.is_dense]
        if len(cut) < 2 or len({choice.factorization for choice in cut}) > 1 or len(cut[-1].values) != 1:
            return None
        if len(pool_names(table.fits.layers[layer], table.fits.plugins[cut[0].factorization])) > 1:
            return None
        (axis,) = cut[-1].values
        form = table.fits.forms(layer, cut[-1])[layer]
        names = {each: name for name, each in form.named_parameters()}
        found = [(names[factor], mode) for factor, mode in owned(form, axis)]
        if not found:
            return None
        ranks = [int(choice.values[axis]) for choice in cut]
        made = cls(form, found[0], ranks, table.fits.weights(layer) if choices[-1].is_dense else None)
        return made if made._gives(table, layer, cut, len(choices) - 1) else None

    def _gives(self, table: OptionTable, layer: str, cut: Sequence[Choice], count: int) -> bool:
        """Whether hard masks give the fits of all ranks."""
        for taken, choice in enumerate(cut):
            wanted = table.fits.weight(layer, choice)
            masks = (torch.arange(count, device=wanted.device) < taken).to(wanted)
            if not torch.linalg.vector_norm(self(masks) - wanted) <= ALIKE * torch.linalg.vector_norm(wanted):
                return False
        return True

    def __call__(self, masks: Float[Tensor, " steps"]) -> Tensor:
        factor = self._form.get_parameter(self._name)
        of_ranks = torch.cat([masks.new_ones(1), masks[: self._last]]).to(factor)
        masked = factor * of_ranks[self._steps].view(self._shape)
        weight: Tensor = functional_call(_Dense(self._form), {f"form.{self._name}": masked}, ())
        return weight if self._left is None else weight + masks[-1].to(factor) * self._left


class _Dense(nn.Module):
    """What a form stands for, as a module's forward."""

    def __init__(self, form: Factorization) -> None:
        super().__init__()
        self.form = form

    def forward(self) -> Tensor:
        return self.form.dense()

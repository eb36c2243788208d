"""The axes of a model whose components training may empty or leave out, with their slices of the factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from rank_search.layers import Factorization, adds_up, layer_cost, owned, shares_factors
from rank_search.point import Choice
from rank_search.training.penalties import frames

Slices = Sequence[tuple[Tensor, int]]
"""Factors, each with a mode along which it has a slice of each component, or a block of such slices for each group."""


@dataclass(frozen=True)
class ComponentAxis:
    """An axis of a form, with the slices that its components own of the factors that are trained."""

    form: Factorization
    name: str
    slices: Slices

    @property
    def count(self) -> int:
        """How many components it has."""
        return int(self.form.values[self.name])

    def cost_of_one(self) -> Mapping[str, float]:
        """What one component more would cost."""
        layer, plugin, values = self.form.layer, type(self.form), self.form.values
        more = Choice(plugin.__name__, {**values, self.name: values[self.name] + 1})
        found = layer_cost(layer, plugin, more) - layer_cost(layer, plugin, Choice(plugin.__name__, values))
        return {"params": max(0.0, found.params), "macs": max(0.0, found.macs)}


def component_axes(model: nn.Module, *, framed: bool = False) -> Sequence[ComponentAxis]:
    """All axes that own slices of factors that are trained.

    Those of forms that share factors are left out, as a component of one is in use by the others, and those whose
    components do not add up to the weight (see `adds_up`).

    Args:
        framed: frames are kept orthonormal; they are left out.

    >>> component_axes(nn.Linear(2, 2))
    []
    """
    kept = {frame.untyped_storage().data_ptr() for frame in frames(model)} if framed else set()
    found = []
    forms = (module for module in model.modules() if isinstance(module, Factorization))
    for form in (each for each in forms if not shares_factors(each)):
        for axis in form.values:
            slices = [(factor, mode) for factor, mode in owned(form, axis) if factor.requires_grad]
            slices = [each for each in slices if each[0].untyped_storage().data_ptr() not in kept]
            found += [ComponentAxis(form, axis, slices)] if slices and adds_up(form, axis) else []
    return found

"""What a trained model has become: without the components that training has emptied, and smaller for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from rank_search.coding import Grid
from rank_search.layers import (
    Factorization,
    Layer,
    Plugins,
    layer_cost,
    left_of,
    plugin_errors,
    settled_form,
    shares_factors,
)
from rank_search.point import Choice, Point


@dataclass(frozen=True)
class Settled:
    """A model by its point, its state dict, and the grids of what is rounded (None: nothing is)."""

    point: Point
    state: Mapping[str, Tensor]
    grids: Mapping[str, Grid] | None = None


@torch.no_grad()
def fold(model: nn.Module) -> None:
    """Let each factorization fold what only training needs into its factors.

    Raises:
        ContractError: one of them raises.
    """
    for module in model.modules():
        if isinstance(module, Factorization):
            with plugin_errors(type(module), "fold()", module.layer):
                module.fold()


def settled(model: nn.Module, trained: Settled, round_to: int = 1) -> Settled:
    """The same model without empty components (see `settled_form`): it computes the same, and is no larger.

    Every factorization settles by itself, those of tied layers too, unless they share factors: these stay as they are,
    as does what is not factorized.

    Args:
        model: the trained model; it is not changed.
        trained: what it is.
        round_to: axis values are multiples of it, as in the search.
    """
    layers, state, grids = dict(trained.point.layers), dict(trained.state), dict(trained.grids or {})
    for form, names in _forms(model).items():
        small = settled_form(form, round_to, _whole(names[0], form, grids))
        if small.form is form:
            continue
        layers |= {name: _chosen(layers[name], small.form) for name in names if name in layers}
        for own, tensor in form.state_dict().items():
            left = left_of(tensor, small.places[own])
            state |= {_joined(name, own): left for name in names}
            if (key := _joined(names[0], own)) in grids:
                grids[key] = grids[key].part(small.places[own])
    found = None if trained.grids is None else grids
    return Settled(Point(layers, trained.point.penalties), state, found)


def settled_costs(
    asked: Point, settled: Point, layers: Mapping[str, Layer], plugins: Plugins
) -> dict[str, dict[str, float]]:
    """Parameters and MACs of each layer that has settled at other values, by name."""
    return {
        name: asdict(layer_cost(layers[name], plugins[choice.factorization], choice))
        for name, choice in settled.layers.items()
        if choice != asked.layers[name]
    }


def _forms(model: nn.Module) -> Mapping[Factorization, list[str]]:
    """Every factorization whose factors are its own, with its names in the model."""
    found: dict[Factorization, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Factorization) and not shares_factors(module):
            found.setdefault(module, []).append(name)
    return found


def _whole(name: str, form: Factorization, grids: Mapping[str, Grid]) -> set[tuple[str, int]]:
    """Modes that are rounded by their frequencies: with fewer places these would be other ones."""
    by_frequency = {own for own in form.state_dict() if (key := _joined(name, own)) in grids and grids[key].frequencies}
    return {(own, mode) for own in by_frequency for mode in (2, 3)}


def _chosen(choice: Choice, form: Factorization) -> Choice:
    return Choice(choice.factorization, {axis: form.values[axis] for axis in choice.values})


def _joined(name: str, own: str) -> str:
    return f"{name}.{own}" if name else own

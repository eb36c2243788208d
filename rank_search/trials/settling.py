"""What a trained model has become: without the components that training has emptied, and smaller for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from rank_search.coding import Grid
from rank_search.layers import (
    Factorization,
    Kept,
    Layer,
    Plugins,
    SettledForm,
    cut_form,
    layer_cost,
    left_of,
    plugin_errors,
    settled_form,
    shares_factors,
)
from rank_search.point import Choice, Point

Whole = set[tuple[str, int]]
"""Modes of tensors that are not to be cut, by name and mode."""

SmallOf = Callable[[Factorization, Sequence[str], Whole], SettledForm | None]
"""The smaller form that is to stand for a form of some names."""


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
    return _remade(model, trained, lambda form, names, whole: settled_form(form, round_to, whole))


@torch.no_grad()
def cut(model: nn.Module, trained: Settled, kept: Mapping[str, Kept]) -> Settled:
    """The same model with these components alone, by layer: it computes something else, and is smaller.

    Args:
        model, trained: as in `settled`; neither is changed.
        kept: as `cut_form` takes it; a layer that refuses it, or is not here, stays as it is.
    """

    def small(form: Factorization, names: Sequence[str], whole: Whole) -> SettledForm | None:
        found = next((kept[name] for name in names if name in kept), None)
        return None if found is None else cut_form(form, found, whole)

    return _remade(model, trained, small)


def _remade(model: nn.Module, trained: Settled, small_of: SmallOf) -> Settled:
    """Point, state dict and grids with a smaller form in the place of each one that has one."""
    layers, state, grids = dict(trained.point.layers), dict(trained.state), dict(trained.grids or {})
    for form, names in forms(model).items():
        small = small_of(form, names, whole_modes(names[0], form, grids))
        if small is None or small.form is form:
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
    found = layer_costs(settled, layers, plugins)
    return {name: cost for name, cost in found.items() if settled.layers[name] != asked.layers[name]}


def layer_costs(point: Point, layers: Mapping[str, Layer], plugins: Plugins) -> dict[str, dict[str, float]]:
    """Parameters and MACs of each factorized layer, by name."""
    return {
        name: asdict(layer_cost(layers[name], plugins[choice.factorization], choice))
        for name, choice in point.layers.items()
        if not choice.is_dense
    }


def forms(model: nn.Module) -> Mapping[Factorization, list[str]]:
    """Every factorization whose factors are its own, with its names in the model."""
    found: dict[Factorization, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Factorization) and not shares_factors(module):
            found.setdefault(module, []).append(name)
    return found


def whole_modes(name: str, form: Factorization, grids: Mapping[str, Grid]) -> Whole:
    """Modes that are rounded by their frequencies: with fewer places these would be other ones."""
    by_frequency = {own for own in form.state_dict() if (key := _joined(name, own)) in grids and grids[key].frequencies}
    return {(own, mode) for own in by_frequency for mode in (2, 3)}


def _chosen(choice: Choice, form: Factorization) -> Choice:
    return Choice(choice.factorization, {axis: form.values[axis] for axis in choice.values})


def _joined(name: str, own: str) -> str:
    return f"{name}.{own}" if name else own

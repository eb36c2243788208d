"""Which modules have one weight, so that they are one layer: a head and its embedding, or layers of one geometry."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from torch import Tensor, nn

from rank_search.layers.kinds import weight_in
from rank_search.layers.layer import Layer
from rank_search.layers.reasons import Ties
from rank_search.layers.units import Unit


def tied_groups(
    wanted: Sequence[Unit], ties: Ties, called: Collection[nn.Module]
) -> tuple[dict[str, tuple[Unit, ...]], dict[str, str]]:
    """The further users of each layer's weight, by the layer's name; and what is left alone, with the reason.

    Of the units that have one weight the layer is the first that is called, one that looks rows up only if there is no
    other. All of them are left alone where one is not wanted, or uses the weight in a way that a form would not.

    Args:
        wanted: what may be a layer by itself.
        called: the modules that run.
    """
    groups: dict[str, tuple[Unit, ...]] = {}
    torn: dict[str, str] = {}
    for unit in wanted:
        sharing = ties.sharing(unit.module)
        users = [each for each in wanted if each.module is unit.module or each.module in sharing]
        running = [each for each in users if each.module in called]
        if not sharing or not running:
            continue
        layer = min(running, key=lambda each: Layer.of(each.module).one_hot)
        others = tuple(each for each in users if each is not layer)
        if len(others) < len(sharing) or not all(_is_tie(layer.module, each.module) for each in others):
            torn[unit.name] = tied_to(ties.others(unit.module, unit.module.get_parameter("weight")))
        elif unit is layer:
            groups[unit.name] = others
    return groups, torn


def tied_in(layer: str) -> str:
    """What is said of a module that is served by the layer whose weight it has.

    >>> tied_in("head")
    'it has the weight of head, and becomes what that becomes'
    """
    return f"it has the weight of {layer}, and becomes what that becomes"


def tied_to(names: Sequence[str]) -> str:
    """The reason why a layer is left alone."""
    return f"its weight is tied to {', '.join(names)}"


def _is_tie(layer: nn.Module, other: nn.Module) -> bool:
    """Whether a form of the layer can serve the other module, too: it looks up its rows, or is of the same geometry."""
    own, its = Layer.of(layer), Layer.of(other)
    if its.one_hot and not own.one_hot:
        return len(own.shape) == 2 and _is_same(weight_in(layer).T, weight_in(other))
    is_alike = replace(its, bias=own.bias, padding_idx=own.padding_idx) == own
    return is_alike and _is_same(weight_in(layer), weight_in(other))


def _is_same(one: Tensor, other: Tensor) -> bool:
    return (one.shape, one.stride(), one.data_ptr()) == (other.shape, other.stride(), other.data_ptr())

"""What may be chosen together: each layer by itself, or layers that are tied, with what applies to all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rank_search.errors import LayerError
from rank_search.layers import Axis, Layer, Plugins, axes_of, pool_names
from rank_search.options.ranges import AxisRange, Group

Priors = Mapping[tuple[str, str, str], float]
"""The rank prior of an axis, by layer, factorization and axis."""


def build_groups(
    layers: Mapping[str, Layer],
    plugins: Plugins,
    ties: Mapping[str, Sequence[str]] | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
    priors: Priors | None = None,
) -> tuple[Group, ...]:
    """The groups of layers that something can be chosen for, each with the ranges of its axes.

    Args:
        layers: what may be factorized, by name, in the order of the model.
        plugins: factorization classes by name.
        ties: layers that share a choice, by the group's name; default: each layer its own group.
        choices: the factorizations allowed for each layer, in order of preference; default: all plugins.
        priors: of every axis that may be chosen; default: the largest value of each.

    Raises:
        LayerError: tied layers have no factorization in common, or no layer has any.
    """
    if not (found := possible_groups(layers, plugins, ties, choices, priors)):
        raise LayerError(
            f"None of the {len(layers)} layers can be factorized: {', '.join(plugins) or 'no factorization'} is not "
            "allowed for, or does not apply to, any of them. Allow other factorizations, or include more layers "
            "([layers])."
        )
    return found


def possible_groups(
    layers: Mapping[str, Layer],
    plugins: Plugins,
    ties: Mapping[str, Sequence[str]] | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
    priors: Priors | None = None,
) -> tuple[Group, ...]:
    """The same, none where no layer can be factorized.

    Raises:
        LayerError: tied layers have no factorization in common.
    """
    found = []
    for name, members in (ties or {layer: (layer,) for layer in layers}).items():
        allowed = [plugins if choices is None else choices[member] for member in members]
        common = {each: plugins[each] for each in allowed[0] if all(each in others for others in allowed)}
        axes = _common_axes([layers[member] for member in members], common, priors)
        if axes:
            found.append(Group(name, axes))
        elif len(members) > 1 and any(allowed):
            raise LayerError(
                f"No factorization is allowed for, and applies to, all of the tied layers {', '.join(members)}. "
                "Tied layers share one. Untie them, or allow another factorization ([layers])."
            )
    return tuple(found)


def _common_axes(
    layers: Sequence[Layer], plugins: Plugins, priors: Priors | None
) -> dict[str, dict[str, tuple[AxisRange, ...]]]:
    """Ranges by layer and factorization, for the factorizations that all the layers support."""
    found = {layer.name: {name: axes_of(plugin, layer) for name, plugin in plugins.items()} for layer in layers}
    common = [name for name in plugins if all(found[layer.name][name] for layer in layers)]
    if not common:
        return {}
    pools = {(layer.name, name): pool_names(layer, plugins[name]) for layer in layers for name in common}
    return {
        layer: {
            name: tuple(_range(axis, pools[layer, name], name, priors) for axis in by_name[name]) for name in common
        }
        for layer, by_name in found.items()
    }


def _range(axis: Axis, pool: Sequence[str], factorization: str, priors: Priors | None) -> AxisRange:
    """The range of an axis; its prior is the largest of the layers that have the axis in common."""
    known = axis.high if priors is None else max(priors[layer, factorization, axis.name] for layer in pool)
    return AxisRange(axis.name, axis.low, axis.high, min(max(known, axis.low), axis.high), axis.integer)

"""Step 8 of the data path: axes and priors become a search space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rank_search.errors import LayerError
from rank_search.layers import Axis, Factorization, Layer
from rank_search.options import AxisRange, Group
from rank_search.priors import AxisPrior
from rank_search.search.settings import SearchSettings
from rank_search.search.space import Space

Priors = Mapping[tuple[str, str, str], float]


def build_space(
    layers: Mapping[str, Layer],
    plugins: Mapping[str, type[Factorization]],
    priors: Iterable[AxisPrior],
    settings: SearchSettings,
    groups: Mapping[str, Sequence[str]] | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> Space:
    """The space of all choices for these layers.

    A layer that no factorization is allowed for, or none applies to, is left out: it stays dense.

    Args:
        layers: what may be factorized, by name, in the order of the model.
        plugins: factorization classes by name.
        priors: what the weights say about every axis of every factorization that may be chosen.
        groups: layers that share their coordinates, by the group's name; default: each layer its own group.
        choices: the factorizations allowed for each layer, in order of preference; default: all plugins.

    Raises:
        LayerError: tied layers have no factorization in common, or there is nothing to search.
    """
    known = {(prior.layer, prior.factorization, prior.axis): prior.prior for prior in priors}
    searched = []
    for name, members in (groups or {layer: (layer,) for layer in layers}).items():
        allowed = [plugins if choices is None else choices[member] for member in members]
        common = {each: plugins[each] for each in allowed[0] if all(each in others for others in allowed)}
        axes = _common_axes([layers[member] for member in members], common, known)
        if axes:
            searched.append(Group(name, axes))
        elif len(members) > 1 and any(allowed):
            raise LayerError(
                "Tied layers share a factorization; none is allowed for, and applies to, all of "
                f"{', '.join(members)}. Untie them, or allow another factorization ([layers])."
            )
    if not searched:
        raise LayerError(
            f"A search needs a layer to factorize; none of {', '.join(plugins) or 'the allowed factorizations'} "
            f"is allowed for, and applies to, any of the {len(layers)} layers. Allow other factorizations, or "
            "include more layers ([layers])."
        )
    return Space(tuple(searched), settings.weakening, settings.multiplier, settings.round_to, settings.penalties)


def _common_axes(
    layers: Sequence[Layer], plugins: Mapping[str, type[Factorization]], priors: Priors
) -> dict[str, dict[str, tuple[AxisRange, ...]]]:
    """Ranges by layer and factorization, for the factorizations that all the layers support."""
    found = {layer.name: {name: plugin.axes(layer) for name, plugin in plugins.items()} for layer in layers}
    common = [name for name in plugins if all(found[layer.name][name] for layer in layers)]
    if not common:
        return {}
    return {
        layer: {name: tuple(_range(layer, name, axis, priors) for axis in by_name[name]) for name in common}
        for layer, by_name in found.items()
    }


def _range(layer: str, factorization: str, axis: Axis, priors: Priors) -> AxisRange:
    prior = min(max(priors[layer, factorization, axis.name], axis.low), axis.high)
    return AxisRange(axis.name, axis.low, axis.high, prior, axis.integer)

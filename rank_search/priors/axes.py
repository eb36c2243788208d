"""What the weights say about each axis of a layer: its rank prior, and where it stops paying."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from rank_search.layers import Axis, Factorization, Layer, axes_of, layer_cost
from rank_search.point import Choice
from rank_search.priors.cache import CachedBases
from rank_search.priors.settings import PriorSettings
from rank_search.priors.vbmf import RankPrior, vbmf
from rank_search.priors.weakening import value_at


@dataclass(frozen=True)
class AxisPrior:
    """One axis of one factorization of one layer.

    Attributes:
        layer, factorization, axis: their names.
        high, low: the axis's largest and smallest value.
        prior: what the weakening is relative to: the rank of the settings' rule (VBMF unless they say otherwise), or
            the value that allows it, within [low, high]; for an axis without unfoldings the geometric mean of the two,
            or their middle where `low` is not positive.
        vbmf_rank: the largest VBMF rank of the axis's unfoldings; None without unfoldings.
        noise_variance, energy_kept: of that unfolding (see `RankPrior`); None without unfoldings.
        break_even: the largest whole value at which the factorized layer still has fewer parameters and, unless the
            dense one only looks rows up, fewer MACs than the dense one, with the factorization's other axes at the
            same fraction of their ranges; None if there is no such value, or if the axis is not made of whole numbers.
    """

    layer: str
    factorization: str
    axis: str
    high: float
    low: float
    prior: float
    vbmf_rank: int | None
    noise_variance: float | None
    energy_kept: float | None
    break_even: int | None


def axis_priors(
    layer: Layer,
    plugins: Mapping[str, type[Factorization]],
    bases: CachedBases,
    settings: PriorSettings | None = None,
) -> tuple[AxisPrior, ...]:
    """The priors of every axis that the plugins offer for this layer, in the plugins' and axes' order.

    Args:
        bases: of the layer's weight, and with what is known of its inputs.
    """
    return tuple(
        _axis_prior(layer, name, plugin, axis, bases, settings or PriorSettings())
        for name, plugin in plugins.items()
        for axis in axes_of(plugin, layer)
    )


def _axis_prior(
    layer: Layer, name: str, plugin: type[Factorization], axis: Axis, bases: CachedBases, settings: PriorSettings
) -> AxisPrior:
    found = _strongest(axis, bases)
    known = found if settings.rule == "vbmf" and settings.spectra == "weights" else None
    asked = _rank(axis, bases, settings) if known is None else known.rank
    middle = value_at(1, axis.high, _middle(axis) if asked is None else axis.value_of(asked), axis.low)
    return AxisPrior(
        layer=layer.name,
        factorization=name,
        axis=axis.name,
        high=axis.high,
        low=axis.low,
        prior=middle,
        vbmf_rank=None if found is None else found.rank,
        noise_variance=None if found is None else found.noise_variance,
        energy_kept=None if found is None else found.energy_kept,
        break_even=_break_even(layer, name, plugin, axis),
    )


def _strongest(axis: Axis, bases: CachedBases) -> RankPrior | None:
    """The prior of the unfolding with the largest VBMF rank: the axis bounds the rank of each of them."""
    found = [vbmf(bases.spectrum(unfolding)) for unfolding in axis.unfoldings]
    return max(found, key=lambda prior: prior.rank, default=None)


def _rank(axis: Axis, bases: CachedBases, settings: PriorSettings) -> int | None:
    """The largest rank that the rule asks for among the axis's unfoldings: the axis bounds the rank of each."""
    spectrum = bases.spectrum if settings.spectra == "weights" else bases.output_spectrum
    return max((settings.rank(spectrum(unfolding)) for unfolding in axis.unfoldings), default=None)


def _middle(axis: Axis) -> float:
    return (axis.low * axis.high) ** 0.5 if axis.low > 0 else (axis.low + axis.high) / 2


def _break_even(layer: Layer, name: str, plugin: type[Factorization], axis: Axis) -> int | None:
    if not axis.integer:
        return None
    axes = axes_of(plugin, layer)
    dense = layer_cost(layer, None, Choice())

    def too_costly(value: int) -> bool:
        cost = layer_cost(layer, plugin, Choice(name, _together(axes, axis, value)))
        fewer_macs = cost.macs < dense.macs or not layer.inputs or layer.one_hot
        return not (cost.params < dense.params and fewer_macs)

    # Costs grow with the value, so the affordable values come first.
    values = range(int(axis.low), int(axis.high) + 1)
    affordable = bisect_left(values, True, key=too_costly)
    return values[affordable - 1] if affordable else None


def _together(axes: tuple[Axis, ...], axis: Axis, value: int) -> dict[str, float]:
    """Every axis at the fraction of its range at which `axis` has this value."""
    span = axis.high - axis.low
    fraction = (value - axis.low) / span if span else 1.0
    return {other.name: _at(other, fraction) for other in axes}


def _at(axis: Axis, fraction: float) -> float:
    value = axis.low + fraction * (axis.high - axis.low)
    return round(value) if axis.integer else value

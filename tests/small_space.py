"""A small network's layers, and spaces and costs made from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from rank_search.layers import Cost, Layer, load_plugin
from rank_search.options import CostModel, OptionTable
from rank_search.point import Choice
from rank_search.priors import AxisPrior
from rank_search.search import SearchSettings, Space, build_space

LAYERS = {
    layer.name: layer
    for layer in (
        Layer("stem", "conv2d", (16, 3, 3, 3), padding=((1, 1), (1, 1)), inputs=((1, 3, 8, 8),)),
        Layer("body", "conv2d", (32, 16, 3, 3), padding=((1, 1), (1, 1)), inputs=((1, 16, 8, 8),)),
        Layer("neck", "conv2d", (32, 32, 3, 3), padding=((1, 1), (1, 1)), inputs=((1, 32, 8, 8),)),
        Layer("head", "linear", (40, 64), inputs=((1, 64),)),
    )
}
REST = Cost(params=100, macs=1000)


def all_priors(layers: Mapping[str, Layer], plugins: Sequence[str]) -> list[AxisPrior]:
    """A prior of about a third of each axis, different for every layer."""
    found = []
    for shift, layer in enumerate(layers.values()):
        for name in plugins:
            for axis in load_plugin(name).axes(layer):
                prior = max(axis.low, round(axis.high / (2.5 + shift / 2)))
                found.append(AxisPrior(layer.name, name, axis.name, axis.high, axis.low, prior, None, None, None, None))
    return found


Made = tuple[Space, CostModel, SearchSettings]

LADDERS = {"fractions": [0.75, 0.5, 0.35, 0.25, 0.15], "weakenings": [0.25, 0.5, 0.75, 1]}
"""Nine seed points, the same whatever the layers' errors are."""


def made_up_error(space: Space) -> Callable[[str, Choice], float]:
    """(1 − value / largest)², averaged over the axes of a choice."""
    ranges = {layer: by_name for group in space.groups for layer, by_name in group.axes.items()}

    def error_of(layer: str, choice: Choice) -> float:
        if choice.is_dense:
            return 0.0
        axes = ranges[layer][choice.factorization]
        return sum((1 - choice.values[axis.name] / axis.high) ** 2 for axis in axes) / len(axes)

    return error_of


def options_of(made: Made) -> OptionTable:
    """What each layer may become, with a made-up error."""
    space, costs, _ = made
    return OptionTable(space.groups, costs, made_up_error(space), space.round_to)


@pytest.fixture
def make() -> Callable[..., Made]:
    """Space, costs and settings of the small network."""

    def made(
        plugins: Sequence[str] = ("svd", "tucker2"),
        layers: Mapping[str, Layer] = LAYERS,
        groups: Mapping[str, Sequence[str]] | None = None,
        choices: Mapping[str, Sequence[str]] | None = None,
        **settings: Any,
    ) -> Made:
        loaded = {name: load_plugin(name) for name in plugins}
        search = SearchSettings(**settings)
        space = build_space(layers, loaded, all_priors(layers, plugins), search, groups, choices)
        return space, CostModel(layers, loaded, REST), search

    return made

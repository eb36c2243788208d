"""Which forms of which layers are timed when a study begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from rank_search.layers import Layer
from rank_search.options.cost_model import CostModel
from rank_search.options.form_speeds import Forms, Measured
from rank_search.options.ranges import AxisRange, Group
from rank_search.point import Choice

SHARES: Final = (0.1, 0.25, 0.5, 0.75)
"""Where on its range each axis is measured."""

TimeForm = Callable[[Layer, Choice], float | None]
"""Measures how long a form of a layer takes in units of the dense layer; None where that cannot be said."""


def measure_forms(groups: Iterable[Group], costs: CostModel, time_form: TimeForm, round_to: int = 1) -> Forms:
    """Time the forms of every layer of the groups that save something, on a grid of `SHARES`.

    A layer that only looks rows up is not timed: no form could be as fast (see `CostModel.saves`). Layers of one
    geometry are timed once. Ratios are rounded to four digits, so that they read the same everywhere.
    Complexity: layers of different geometry × factorizations × `SHARES` calls of `time_form`.
    """
    known: dict[tuple[Layer, str], tuple[Measured, ...]] = {}
    measured: dict[str, dict[str, tuple[Measured, ...]]] = {}
    for group in groups:
        for layer, name in _forms(group, costs):
            key = (costs.geometry(layer), name)
            if key not in known:
                choices = _grid(group.axes[layer][name], name, round_to)
                known[key] = _measured(costs, layer, choices, time_form)
            if known[key]:
                measured.setdefault(layer, {})[name] = known[key]
    return Forms(measured)


def _forms(group: Group, costs: CostModel) -> list[tuple[str, str]]:
    timed = {layer: by_name for layer, by_name in group.axes.items() if not costs.geometry(layer).one_hot}
    return [(layer, name) for layer, by_name in timed.items() for name in by_name]


def _grid(ranges: Sequence[AxisRange], name: str, round_to: int) -> list[Choice]:
    return [Choice(name, {axis.name: axis.snap(share * axis.high, round_to) for axis in ranges}) for share in SHARES]


def _measured(costs: CostModel, layer: str, choices: Sequence[Choice], time_form: TimeForm) -> tuple[Measured, ...]:
    found: dict[float, float] = {}
    for choice in choices:
        macs = float(costs.layer_cost(layer, choice).macs)
        if macs in found or not costs.saves(layer, choice):
            continue
        ratio = time_form(costs.geometry(layer), choice)
        if ratio is not None:
            found[macs] = float(f"{ratio:.4g}")
    return tuple(sorted(found.items()))

"""What each layer may become, with what it costs and how far its outputs are off: measured once, before any trial."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from rank_search.options.cost_model import CostModel, normalized
from rank_search.options.fits import ErrorOf
from rank_search.options.ranges import AxisRange, Group
from rank_search.point import DENSE, Choice, Point

LADDER: Final = (
    0.002,
    0.004,
    0.006,
    0.008,
    0.011,
    0.015,
    0.03,
    0.045,
    0.06,
    0.08,
    0.1,
    0.125,
    0.15,
    0.175,
    0.2,
    0.235,
    0.27,
    0.31,
    0.35,
    0.4,
    0.45,
    0.5,
    0.6,
    0.8,
    1.0,
)
"""Fractions of an axis's largest value, finer where factorizations save.

The first ones differ where an axis has a hundred values or more."""

COARSE: Final = (0.02, 0.045, 0.08, 0.12, 0.2, 0.3, 0.4, 0.5, 0.62, 0.75)
"""The same for each of two axes, in all pairs that are not too unlike."""

UNLIKE: Final = 5.0
"""How many times the one fraction may be the other."""

Choices = Mapping[str, Choice]


@dataclass(frozen=True)
class Option:
    """One way to choose for the layers of a group.

    Attributes:
        choices: by layer.
        params, macs: of these layers.
        error: E‖Wx − W'x‖² / E‖Wx‖² of the fit, summed over the layers: 0 for dense, 1 where a layer's outputs are
            lost; without calibration data, of the weights themselves.
    """

    choices: Choices
    params: int
    macs: float
    error: float

    @property
    def factorization(self) -> str:
        """The one that its layers have, as far as they are not dense."""
        return next((each.factorization for each in self.choices.values() if not each.is_dense), DENSE)


@final
class OptionTable:
    """The options of every group: a grid for each, and any other choice on demand.

    Dense comes first; of a factorization only what is smaller than dense. One axis is laid out on `LADDER`, two on
    pairs of `COARSE`, more on equal fractions of their ranges.

    Args:
        groups: layers, or tied layers, and what may be chosen for them.
        error_of: the relative output error of a layer under a choice; see `Fits`.
        round_to: whole-numbered axis values are multiples of this.
    """

    def __init__(self, groups: Iterable[Group], costs: CostModel, error_of: ErrorOf, round_to: int = 1) -> None:
        self._groups = {group.name: group for group in groups}
        self.costs, self._error_of, self._round_to = costs, error_of, round_to
        self._known: dict[tuple[str, str], Option] = {}
        self.of = {name: tuple(self._grid(group)) for name, group in self._groups.items()}
        searched = [self.of[name][0] for name in self._groups]
        dense = costs.dense
        self.dense = dense
        self.rest = {
            "params": dense["params"] - sum(each.params for each in searched),
            "macs": dense["macs"] - sum(each.macs for each in searched),
        }

    def with_costs(self, costs: CostModel) -> OptionTable:
        """The same under another model of costs, which takes other choices for dense; no error is measured again."""
        return OptionTable(self._groups.values(), costs, self._error_of, self._round_to)

    @property
    def factorizations(self) -> tuple[str, ...]:
        """Every factorization of any group, once."""
        return tuple(dict.fromkeys(name for group in self._groups.values() for name in group.factorizations))

    def total(self, chosen: Sequence[Option]) -> dict[str, float]:
        """Counted costs of the whole model, given an option for each group."""
        return {
            "params": self.rest["params"] + sum(each.params for each in chosen),
            "macs": self.rest["macs"] + sum(each.macs for each in chosen),
        }

    def describe(self, point: Point) -> tuple[Option, ...]:
        """What the point chooses for each group, on the grid or not."""
        return tuple(
            self._option({layer: point.layers.get(layer, Choice()) for layer in group.layers}, name)
            for name, group in self._groups.items()
        )

    def _grid(self, group: Group) -> Iterator[Option]:
        seen: set[str] = set()
        for choices in _choices(group, self._round_to):
            smaller = {layer: normalized(self.costs, layer, choice) for layer, choice in choices.items()}
            option = self._option(smaller, group.name)
            key = _key(option.choices)
            if key not in seen and (not seen or option.factorization != DENSE):
                seen.add(key)
                yield option

    def _option(self, choices: Choices, group: str) -> Option:
        key = group, _key(choices)
        if key not in self._known:
            found = [self.costs.layer_cost(layer, choice) for layer, choice in choices.items()]
            error = sum(self._error_of(layer, choice) for layer, choice in choices.items())
            self._known[key] = Option(choices, sum(c.params for c in found), sum(c.macs for c in found), error)
        return self._known[key]


def _key(choices: Choices) -> str:
    return repr([(layer, choice.to_json()) for layer, choice in choices.items()])


def _choices(group: Group, round_to: int) -> Iterator[Choices]:
    yield {layer: Choice() for layer in group.layers}
    for name in group.factorizations:
        count = max(len(by_name[name]) for by_name in group.axes.values())
        for fractions in _fractions(count):
            yield {
                layer: Choice(name, _values(by_name[name], fractions, round_to))
                for layer, by_name in group.axes.items()
            }


def _fractions(axes: int) -> Iterator[tuple[float, ...]]:
    if axes == 2:
        pairs = itertools.product(COARSE, repeat=2)
        yield from (pair for pair in pairs if max(pair) <= UNLIKE * min(pair))
    else:
        yield from ((fraction,) * axes for fraction in LADDER)


def _values(ranges: Sequence[AxisRange], fractions: Sequence[float], round_to: int) -> dict[str, int | float]:
    return {
        axis.name: axis.snap(axis.low + fraction * (axis.high - axis.low), round_to)
        for axis, fraction in zip(ranges, fractions, strict=False)
    }

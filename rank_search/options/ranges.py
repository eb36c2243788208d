"""What can be chosen for a layer, or for layers that are tied: factorizations, and the ranges of their axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rank_search.basics import to_four_digits
from rank_search.point import DENSE, AxisValue, Choice
from rank_search.priors import value_at


@dataclass(frozen=True)
class AxisRange:
    """One axis of one factorization of one layer: its range, and the prior that sets its scale."""

    name: str
    low: float
    high: float
    prior: float
    integer: bool = True

    def at(self, weakening: float) -> float:
        """The exact value at a weakening: `high` at 0, the prior at 1, `low` at 2."""
        return value_at(weakening, self.high, self.prior, self.low)

    def snap(self, exact: float, round_to: int) -> AxisValue:
        """The closest value that may be chosen: a multiple of `round_to`, if there is one in the range."""
        inside = min(max(exact, self.low), self.high)
        if not self.integer:
            return min(max(to_four_digits(inside), self.low), self.high)
        least = min(round_to * math.ceil(self.low / round_to), math.floor(self.high))
        most = max(round_to * math.floor(self.high / round_to), least)
        return min(max(round_to * round(inside / round_to), least), most)

    def multiplier(self, value: float, weakening: float) -> float:
        """log2 of what takes the value at this weakening to `value`; infinite where only one of them is zero."""
        scale = self.at(weakening)
        if value > 0 and scale > 0:
            return math.log2(value / scale)
        return 0.0 if value == scale else math.copysign(math.inf, value - scale)


@dataclass(frozen=True)
class Group:
    """Layers that share their coordinates: one layer, or several that are tied.

    `axes` has, for each layer and each factorization that all of them support, the ranges of its axes.
    """

    name: str
    axes: Mapping[str, Mapping[str, tuple[AxisRange, ...]]]

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of its layers."""
        return tuple(self.axes)

    @property
    def factorizations(self) -> tuple[str, ...]:
        """What may be chosen apart from dense, in order of preference."""
        return tuple(next(iter(self.axes.values())))

    @property
    def choices(self) -> tuple[str, ...]:
        """What may be chosen for it: each factorization, or dense."""
        return (*self.factorizations, DENSE)

    @property
    def multipliers(self) -> tuple[str, ...]:
        """Names of its multiplier coordinates: the k-th axis uses the k-th."""
        count = max(len(ranges) for by_name in self.axes.values() for ranges in by_name.values())
        return tuple(f"multiplier:{self.name}" + (f":{k}" if k > 1 else "") for k in range(1, count + 1))

    @property
    def factorization(self) -> str:
        """Name of its categorical coordinate."""
        return f"factorization:{self.name}"

    def chosen(self, layer: str, choice: Choice) -> Iterator[tuple[str, AxisRange, AxisValue]]:
        """Multiplier coordinate, range and value of each axis of a choice; nothing for dense."""
        ranges = () if choice.is_dense else self.axes[layer][choice.factorization]
        for multiplier, axis in zip(self.multipliers, ranges, strict=False):
            yield multiplier, axis, choice.values[axis.name]

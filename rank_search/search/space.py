"""The search space: what can be chosen for which layer, and within which ranges. Frozen with the study."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rank_search.point import DENSE, AxisValue, Choice
from rank_search.priors import value_at
from rank_search.search.strength import Strength, rounded


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
            return min(max(rounded(inside), self.low), self.high)
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
        return tuple(self.axes)

    @property
    def factorizations(self) -> tuple[str, ...]:
        """What may be chosen apart from dense, in order of preference."""
        return tuple(next(iter(self.axes.values())))

    @property
    def choices(self) -> tuple[str, ...]:
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


@dataclass(frozen=True)
class Space:
    """All that a sampler can choose.

    Attributes:
        groups: the layers that are searched; every other layer stays dense.
        weakening: range of the global weakening.
        multiplier: log2 multipliers lie in [−multiplier, multiplier].
        round_to: whole-numbered axis values are rounded to a multiple of this.
        penalties: strength of each penalty by name.
    """

    groups: tuple[Group, ...]
    weakening: tuple[float, float] = (0.0, 2.0)
    multiplier: float = 3.0
    round_to: int = 1
    penalties: Mapping[str, Strength] = field(default_factory=dict)

    @property
    def searched_penalties(self) -> dict[str, Strength]:
        """Penalties that have a coordinate."""
        return {name: strength for name, strength in self.penalties.items() if strength.searched}

    def to_json(self) -> dict[str, Any]:
        return {
            "groups": [{"name": group.name, "axes": _axes_to_json(group)} for group in self.groups],
            "weakening": list(self.weakening),
            "multiplier": self.multiplier,
            "round_to": self.round_to,
            "penalties": {name: strength.to_json() for name, strength in self.penalties.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Space:
        low, high = data["weakening"]
        return cls(
            groups=tuple(Group(group["name"], _axes_from_json(group["axes"])) for group in data["groups"]),
            weakening=(low, high),
            multiplier=data["multiplier"],
            round_to=data["round_to"],
            penalties={name: Strength.parse(strength) for name, strength in data["penalties"].items()},
        )


# Lists of pairs rather than objects: the order of layers and of factorizations carries meaning, and a store
# may sort the keys of an object.


def _axes_to_json(group: Group) -> list[Any]:
    return [
        [layer, [[name, [vars(axis) for axis in ranges]] for name, ranges in by_name.items()]]
        for layer, by_name in group.axes.items()
    ]


def _axes_from_json(data: list[Any]) -> dict[str, dict[str, tuple[AxisRange, ...]]]:
    return {
        layer: {name: tuple(AxisRange(**axis) for axis in ranges) for name, ranges in by_name}
        for layer, by_name in data
    }

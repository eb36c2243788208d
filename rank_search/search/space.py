"""The search space: what can be chosen for which layer, and within which ranges. Frozen with the study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rank_search.options import AxisRange, Group
from rank_search.search.strength import Strength


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

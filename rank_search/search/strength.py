"""The strength of a penalty: off, one number, or a range that is searched on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rank_search.basics import to_four_digits

OFF: Final = "off"

_MARGIN: Final = 0.2


@dataclass(frozen=True)
class Strength:
    """A strength between `low` and `high`, or off (0).

    Equal ends: nothing is searched, the strength is that number (0 = off). Otherwise it is searched by one
    coordinate, log10 of the strength, whose range goes on below log10(low) by a fifth of its width; that margin
    means off. So a sampler needs no second coordinate to switch the penalty off, and off lies next to weak.
    """

    low: float = 0.0
    high: float = 0.0

    @classmethod
    def parse(cls, value: object) -> Strength:
        """Read `"off"`, a number, or `{low, high}`.

        Raises:
            ValueError: it is none of these, or not 0 < low < high.
        """
        if isinstance(value, Strength):
            return value
        if value == OFF:
            return cls()
        low, high = _ends(value)
        if 0 <= low == high < math.inf or 0 < low < high < math.inf:
            return cls(low, high)
        raise ValueError(
            f'{value!r} is no strength; use "off", a number ≥ 0, or a range {{low = 1e-4, high = 1e-1}} '
            "with 0 < low < high"
        )

    @property
    def is_on(self) -> bool:
        return self.high > 0

    @property
    def searched(self) -> bool:
        return self.low < self.high

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the coordinate."""
        low, high = math.log10(self.low), math.log10(self.high)
        return low - _MARGIN * (high - low), high

    @property
    def middle(self) -> float:
        """The strength that seed points use: the geometric middle of the range, or the fixed one."""
        return to_four_digits(math.sqrt(self.low * self.high))

    @property
    def weakest(self) -> float:
        """Off where that can be chosen, else the fixed strength."""
        return 0.0 if self.searched else self.low

    def at(self, coordinate: float) -> float:
        """The strength that a coordinate means."""
        return to_four_digits(10**coordinate) if coordinate >= math.log10(self.low) else 0.0

    def coordinate_of(self, strength: float) -> float:
        """The coordinate closest to a strength; the middle of the margin for off."""
        margin, high = self.interval
        low = math.log10(self.low)
        return min(max(math.log10(strength), low), high) if strength > 0 else (margin + low) / 2

    def allows(self, strength: float) -> bool:
        """Whether a point of the space may have this strength."""
        return self.low <= strength <= self.high or (self.searched and strength == 0)

    def to_json(self) -> Any:
        """What `parse` reads back."""
        if self.searched:
            return {"low": self.low, "high": self.high}
        return self.low or OFF

    def __str__(self) -> str:
        return f"off, or {self.low:g} to {self.high:g}" if self.searched else f"{self.low:g}" if self.low else OFF


def _ends(value: object) -> tuple[float, float]:
    """Low and high, the same for a number; NaN for what is neither a number nor a range."""
    if isinstance(value, Mapping) and set(value) == {"low", "high"}:
        return _number(value["low"]), _number(value["high"])
    return _number(value), _number(value)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan

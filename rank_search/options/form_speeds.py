"""How fast the factorized forms of each layer are, measured once when a study begins and kept with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Measured = tuple[float, float]
"""MACs of a layer's form, and how long it takes in units of the dense layer."""


@dataclass(frozen=True)
class Forms:
    """For each layer and factorization, what was measured, by rising MACs; a form that is not here counts as faster.

    A form's time is read off its MACs, linearly between what was measured, whichever of its axes they come from.
    """

    measured: Mapping[str, Mapping[str, tuple[Measured, ...]]] = field(default_factory=dict)

    def ratio(self, layer: str, factorization: str, macs: float) -> float | None:
        """Time of the form in units of the dense layer; beyond the ends that at the end, None if never measured.

        >>> Forms({"conv": {"svd": ((100.0, 0.8), (200.0, 1.2))}}).ratio("conv", "svd", 150)
        1.0
        """
        known = self.measured.get(layer, {}).get(factorization, ())
        if not known:
            return None
        counts, ratios = zip(*known, strict=True)
        return float(np.interp(macs, counts, ratios))

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads back."""
        return {
            layer: {name: [list(pair) for pair in known] for name, known in by_name.items()}
            for layer, by_name in self.measured.items()
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Forms:
        """Read what `to_json` gave."""
        return cls({layer: {name: _pairs(known) for name, known in by_name.items()} for layer, by_name in data.items()})


def _pairs(known: Iterable[Sequence[float]]) -> tuple[Measured, ...]:
    return tuple((float(macs), float(ratio)) for macs, ratio in known)

"""Numbers for people: four significant digits."""

from __future__ import annotations

import math
from typing import Final

_UNITS: Final = ((1e15, ""), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def number(value: float | None) -> str:
    """Four significant digits, with k, M, G, T from ten thousand on; a dash for nothing. `state.js` has the same.

    >>> number(0.012468), number(29_639_296), number(1234.0), number(None)
    ('0.01247', '29.64M', '1234', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    rounded = float(f"{value:.4g}")
    size = abs(rounded)
    if size < 1e4 or size >= 1e15:
        return f"{rounded:.4g}" if size < 1e15 else f"{rounded:.3e}"
    unit, letter = next((unit, letter) for unit, letter in _UNITS if size >= unit and letter)
    return f"{rounded / unit:.4g}{letter}"

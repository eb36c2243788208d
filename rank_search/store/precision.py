"""How precisely a share of examples is known: the error bars of a selection error."""

from __future__ import annotations

import math
from typing import Final

from rank_search.basics import is_rate

_Z: Final = 1.959963984540054  # of 95 % of a normal distribution


def half_width(share: float, examples: int) -> float:
    """Half of the 95 % interval of a share that was counted on independent examples.

    Symbols: p the share, n ≥ 1 the examples, z = 1.96. Formula: z/(1 + z²/n) · √(p(1 − p)/n + z²/4n²) (Wilson 1927,
    "Probable inference", which is not 0 at p = 0 and 1 either). It says how far the share of another sample of as many
    examples may be off, not how two models on the same examples compare: those differ by less. O(1).

    >>> round(half_width(0.04, 1000), 4)
    0.0122

    Raises:
        ValueError: the share is not from 0 to 1, or there is no example.
    """
    if not 0 <= share <= 1 or examples < 1:
        raise ValueError(f"{share} of {examples} is no share: it is from 0 to 1, of at least one example.")
    spread = share * (1 - share) / examples + _Z**2 / (4 * examples**2)
    return _Z / (1 + _Z**2 / examples) * math.sqrt(spread)


def error_bar(name: str, value: float, examples: int | None) -> float | None:
    """Half of the 95 % interval of a measurement; None if it is no share of the examples, or their number is unknown.

    >>> error_bar("error", 0.5, 100) is None, error_bar("macs", 0.5, 100), error_bar("error", 0.5, None)
    (False, None, None)
    """
    if examples is None or not is_rate(name) or name.startswith("test_") or not 0 <= value <= 1:
        return None
    return half_width(value, examples)

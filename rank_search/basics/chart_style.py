"""What every picture of a front shares, be it drawn by matplotlib, plotext or the report's scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rank_search.basics.number_formats import DIGITS, UNITS

PALETTE: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Okabe and Ito's, which readers with any color vision can tell apart."""

LOG_SPAN: Final = 20.0
"""How many times the smallest value the largest has to be for a logarithmic axis."""

LOOK: Final = {"digits": DIGITS, "units": UNITS, "palette": PALETTE, "log_span": LOG_SPAN}
"""What the report's scripts need to draw and write alike."""


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether an axis of these values is logarithmic: all are positive, and the largest is over 20 times the smallest.

    >>> is_logarithmic([1.0, 30.0]), is_logarithmic([0.0, 30.0]), is_logarithmic([])
    (True, False, False)
    """
    return bool(values) and min(values) > 0 and max(values) > LOG_SPAN * min(values)

"""How numbers are written for people: four significant digits, and a dash for nothing."""

from __future__ import annotations

import math
from typing import Any, Final

NOTHING: Final = "–"

DIGITS: Final = 4

UNITS: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
"""Of short numbers, the largest first."""

_LEAST: Final = 1e4
"""From here on a short number has a unit, and a long one no decimals."""

_MOST: Final = 1e15
"""From here on not every whole number is a float."""


def number(value: float) -> str:
    """A number with its thousands apart; whole ones in full.

    >>> number(0.012468), number(1234567), number(3.0), number(29_639_296.5)
    ('0.01247', '1,234,567', '3', '29,639,296')
    """
    if isinstance(value, int) or (math.isfinite(value) and value == int(value) and abs(value) < _MOST):
        return f"{int(value):,}"
    return f"{value:,.{DIGITS}g}" if abs(value) < _LEAST else f"{value:,.0f}"


def short_number(value: float | None) -> str:
    """A number with k, M, G, T from ten thousand on. The report's scripts write it alike.

    >>> short_number(0.012468), short_number(29_639_296), short_number(1234.0), short_number(None)
    ('0.01247', '29.64M', '1234', '–')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    rounded = float(f"{value:.{DIGITS}g}")
    size = abs(rounded)
    if size < _LEAST:
        return f"{rounded:.{DIGITS}g}"
    if size >= _MOST:
        return f"{rounded:.{DIGITS - 1}e}"
    unit, letter = next((unit, letter) for unit, letter in UNITS if size >= unit)
    return f"{rounded / unit:.{DIGITS}g}{letter}"


def cell(value: Any, error_bar: float | None = None) -> str:
    """What a table shows: a number, with half of its interval if that is known; any other thing as it is.

    >>> cell(0.0123456), cell(None), cell("svd"), cell(0.04, 0.01214)
    ('0.01235', '–', 'svd', '0.04 ± 0.012')
    """
    if value is None or value == "":
        return NOTHING
    written = number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
    return written + plus_minus(error_bar)


def plus_minus(error_bar: float | None) -> str:
    """Half of an interval behind its number; nothing if it is not known.

    >>> plus_minus(0.01214), plus_minus(None)
    (' ± 0.012', '')
    """
    return "" if error_bar is None else f" ± {error_bar:.2g}"


def ratio(dense: float | None, value: float | None) -> str:
    """How many times less than the dense model's.

    >>> ratio(300.0, 100.0), ratio(None, 100.0), ratio(300.0, 0.0)
    ('3×', '–', '–')
    """
    return f"{number(dense / value)}×" if dense is not None and value else NOTHING


def clock(seconds: float | None) -> str:
    """Hours, minutes and seconds.

    >>> clock(3725.2), clock(61), clock(None)
    ('1:02:05', '1:01', '?')
    """
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

"""Numbers as people write them in bounds and wishes: plain, with a suffix, or relative to the dense model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from rank_search.errors import QueryError

COSTS: Final = ("params", "macs", "bits", "bits_per_sample", "nonzeros", "latency", "latency_ratio")
"""Measurements of what a model costs; every trial has the first four."""

_SUFFIXES: Final[Mapping[str, float]] = {"": 1.0, "%": 0.01, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_DIGITS: Final = r"(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBER: Final = rf"[-+]?(?:{_DIGITS}\s*[%kKMGT]?|inf(?:inity)?)"
_UNSIGNED: Final = rf"{_DIGITS}\s*[%kKMGT]?"
_AMOUNT: Final = re.compile(
    rf"(?P<plain>{_NUMBER})"
    rf"|(?:(?P<times>{_NUMBER})\s*(?:\*|of\b)\s*)?dense(?:\s*(?P<by>[*/])\s*(?P<factor>{_UNSIGNED}))?"
    rf"(?:\s*(?P<sign>[-+])\s*(?P<offset>{_UNSIGNED}))?"
)

FORMS: Final = (
    "a number such as 0.03, 200k or 17%, or relative to the dense model: 0.5 * dense, dense / 5, dense + 0.01"
)
"""How an amount may be written, in words."""


@dataclass(frozen=True)
class Amount:
    """A number, or a multiple of what the dense model measures, with something added.

    Attributes:
        number: the amount itself; of a relative one, how many times the dense model's measurement.
        offset: what is added to a relative amount.

    >>> Amount.parse("dense + 0.01", "error").of({"error": 0.25}, "error")
    0.26
    """

    number: float
    of_dense: bool = False
    offset: float = 0.0

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """Read an amount of the measurement of that name.

        A percentage of a cost is of the dense model's: `macs <= 17%`; of anything else, hundredths: `error <= 17%`.

        >>> Amount.parse("200k", "macs"), Amount.parse("17%", "error").number, Amount.parse("17%", "macs").of_dense
        (Amount(number=200000.0, of_dense=False, offset=0.0), 0.17, True)

        Raises:
            QueryError: it is no amount.
        """
        match = _AMOUNT.fullmatch(text.strip())
        if match is None:
            raise QueryError(f"{text.strip()!r} is no amount; write {FORMS}. Numbers may end in %, k, M, G or T.")
        if match["plain"] is not None:
            return cls(_number(match["plain"]), of_dense=_is_share(match["plain"], name))
        scale = _number(match["times"] or "1") * _factor(match["by"], match["factor"], text)
        offset = _number((match["sign"] or "") + (match["offset"] or "0"))
        if _is_share(match["offset"] or "", name):
            return cls(_finite(scale + offset, text), of_dense=True)
        return cls(_finite(scale, text), of_dense=True, offset=offset)

    def of(self, dense: Mapping[str, float], name: str) -> float:
        """The amount in the measurement's own unit.

        Raises:
            QueryError: it is relative to a measurement that the dense model does not have.
        """
        if not self.of_dense:
            return self.number
        if name not in dense:
            known = ", ".join(sorted(dense)) or "none"
            raise QueryError(
                f"The dense model has no measurement {name!r} that a value could be relative to, only {known}. "
                f"Give {name} as a plain number."
            )
        return self.number * dense[name] + self.offset

    def written(self, exact: bool = False) -> str:
        """As `parse` takes it; to 15 digits, or so that it is read again as the very same."""
        number = repr if exact else "{:.15g}".format
        if not self.of_dense:
            return number(self.number)
        scaled = "dense" if self.number == 1 and self.offset else f"{number(self.number)} * dense"
        return f"{scaled} {'-' if self.offset < 0 else '+'} {number(abs(self.offset))}" if self.offset else scaled

    def __str__(self) -> str:
        return self.written()


def _number(text: str) -> float:
    compact = text.replace(" ", "")
    suffix = compact[-1] if compact[-1:] in _SUFFIXES else ""
    return float(compact.removesuffix(suffix)) * _SUFFIXES[suffix] if suffix != "%" else float(compact[:-1]) / 100


def _is_share(text: str, name: str) -> bool:
    return text.rstrip().endswith("%") and name in COSTS


def _factor(by: str | None, text: str | None, whole: str) -> float:
    if by is None or text is None:
        return 1.0
    factor = _number(text)
    if by == "*":
        return factor
    if factor == 0:
        raise QueryError(f"{whole.strip()!r} divides by zero. Give another divisor.")
    return 1.0 / factor


def _finite(scale: float, text: str) -> float:
    if not math.isfinite(scale):
        raise QueryError(f"{text.strip()!r} is infinite. Give a finite multiple of the dense model's value.")
    return scale


def to_four_digits(value: float) -> float:
    """The value to four significant digits, so that equal choices have equal keys."""
    return float(f"{value:.4g}")

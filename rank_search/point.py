"""What the rooms exchange: a `Point` goes out to be tried, an `Outcome` comes back.

This module knows no torch, no optuna and no database, so that a query of a store answers at once.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from rank_search.errors import QueryError

DENSE: Final = "dense"

AxisValue = int | float


@dataclass(frozen=True)
class Choice:
    """What is chosen for one layer: a factorization by name, and the value of each of its axes."""

    factorization: str = DENSE
    values: Mapping[str, AxisValue] = field(default_factory=dict)

    @property
    def is_dense(self) -> bool:
        return self.factorization == DENSE

    def to_json(self) -> dict[str, Any] | str:
        """`"dense"`, or `{"factorization": name, axis: value, …}`."""
        return DENSE if self.is_dense else {"factorization": self.factorization, **self.values}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> Choice:
        if isinstance(data, str):
            return cls(data)
        values = {name: value for name, value in data.items() if name != "factorization"}
        return cls(str(data["factorization"]), values)


@dataclass(frozen=True)
class Point:
    """The values of all axes of all layers, and the strength of each penalty (0 = off)."""

    layers: Mapping[str, Choice]
    penalties: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "layers": {name: choice.to_json() for name, choice in self.layers.items()},
            "penalties": dict(self.penalties),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Point:
        layers = {name: Choice.from_json(choice) for name, choice in data["layers"].items()}
        return cls(layers, dict(data["penalties"]))

    @property
    def key(self) -> str:
        """A digest that two points share exactly when they choose the same (SHA-256 of sorted JSON)."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class State(StrEnum):
    """How a trial ended."""

    COMPLETE = "complete"
    STOPPED = "stopped"  # measured at a rung below the full budget; it may be promoted yet
    INFEASIBLE = "infeasible"  # breaks a constraint of the study
    DIVERGED = "diverged"  # training or evaluation left the finite numbers
    FAILED = "failed"  # it raised, ran out of time, or its worker died


@dataclass(frozen=True)
class Artifact:
    """A file that a trial left: its kind, its name in the study's artifact store, its digest and length."""

    kind: str
    location: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Outcome:
    """What came of a trial: its state, every number measured, why it ended so, and its files."""

    state: State
    measurements: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True)
class Objective:
    """One measurement that is optimized. Inside, lower is always better: see `loss`."""

    name: str
    direction: str = "minimize"

    def loss(self, measurement: float) -> float:
        """The measurement turned so that lower is better."""
        return -measurement if self.direction == "maximize" else measurement


_COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_BOUND: Final = re.compile(
    r"\s*(?P<name>[A-Za-z_][\w.]*)\s*(?P<sign><=|>=|<|>)\s*(?P<limit>[-+.\w]+)\s*(?P<dense>\*\s*dense)?\s*"
)


@dataclass(frozen=True)
class Bound:
    """A bound on one measurement: `error <= 0.03`, or relative to the dense model: `macs <= 0.5 * dense`.

    >>> Bound.parse("macs <= 0.5 * dense").holds({"macs": 40.0}, dense={"macs": 100.0})
    True
    """

    name: str
    sign: str
    limit: float
    of_dense: bool = False

    @classmethod
    def parse(cls, text: str) -> Bound:
        """Read a bound.

        Raises:
            QueryError: the text is not of the form NAME SIGN NUMBER [* dense].
        """
        match = _BOUND.fullmatch(text)
        limit = _number(match["limit"]) if match else math.nan
        if match is None or math.isnan(limit):
            raise QueryError(
                f"A bound is NAME <= NUMBER (or <, >=, >), such as 'error <= 0.03' or 'macs <= 0.5 * dense'; "
                f"found {text!r}."
            )
        return cls(match["name"], match["sign"], limit, match["dense"] is not None)

    def absolute(self, dense: Mapping[str, float]) -> float:
        """The limit in the measurement's own unit."""
        return self.limit * dense[self.name] if self.of_dense else self.limit

    def holds(self, measurements: Mapping[str, float], dense: Mapping[str, float]) -> bool:
        """Whether the measurement is there and within the bound; NaN is never within."""
        value = measurements.get(self.name, math.nan)
        return _COMPARISONS[self.sign](value, self.absolute(dense))

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.limit:.15g}{' * dense' if self.of_dense else ''}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan

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
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from rank_search.basics import Amount
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
    """What came of a trial: its state, every number measured, why it ended so, and its files.

    `settled` is what its model has become, where training has emptied components of what was asked for: measurements
    and files are of that. `settled_costs` has parameters and MACs of each layer that is another one there, by name.
    `row` has further results of the same training: its model, cut.
    """

    state: State
    measurements: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    artifacts: tuple[Artifact, ...] = ()
    settled: Point | None = None
    settled_costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    row: tuple[Cut, ...] = ()


@dataclass(frozen=True)
class Cut:
    """A trained model at smaller values: its point, what came of it, and what each factorized layer costs, by name."""

    point: Point
    outcome: Outcome
    layer_costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Execution:
    """When and where a trial was carried out, and with which rng seed; without a worker, by whoever claimed it."""

    rng_seed: int
    started: datetime
    finished: datetime
    worker: str = ""


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
    "=": operator.eq,
}
_CONDITION: Final = re.compile(
    r"""\s*(?P<name>"[^"]+"|'[^']+'|[^\s<>=!≤≥"'](?:[^<>=!≤≥"']*[^\s<>=!≤≥"'])?)\s*(?P<sign><=|>=|==|!=|<|>|=|≤|≥)(?P<rest>.*)""",
    re.DOTALL,
)
_SIGNS: Final[Mapping[str, str]] = {"==": "=", "≤": "<=", "≥": ">="}
_WORD: Final = re.compile(r"\s*([A-Za-z_][\w-]*)\s*")


@dataclass(frozen=True)
class Bound:
    """A bound on one measurement: `error <= 0.03`, or relative to the dense model: `macs <= 0.5 * dense`.

    `limit` is the number, or how many times the dense model's measurement, to which `offset` is added then.

    >>> Bound.parse("macs <= 0.5 * dense").holds({"macs": 40.0}, dense={"macs": 100.0})
    True
    """

    name: str
    sign: str
    limit: float
    of_dense: bool = False
    offset: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Bound:
        """Read a bound.

        Raises:
            QueryError: the text is not of the form NAME SIGN AMOUNT; see `Amount.parse`.
        """
        found = _CONDITION.fullmatch(text)
        if found is None or found["sign"] == "!=":
            raise _no_bound(text)
        name = found["name"].strip("\"'")
        try:
            amount = Amount.parse(found["rest"], name)
        except QueryError as error:
            raise _no_bound(text, str(error)) from None
        return cls(name, _SIGNS.get(found["sign"], found["sign"]), amount.number, amount.of_dense, amount.offset)

    @property
    def amount(self) -> Amount:
        """What the measurement is compared with."""
        return Amount(self.limit, self.of_dense, self.offset)

    def absolute(self, dense: Mapping[str, float]) -> float:
        """The limit in the measurement's own unit."""
        return self.amount.of(dense, self.name)

    def holds(self, measurements: Mapping[str, float], dense: Mapping[str, float]) -> bool:
        """Whether the measurement is there and within the bound; NaN is never within."""
        value = measurements.get(self.name, math.nan)
        return _COMPARISONS[self.sign](value, self.absolute(dense))

    def written(self) -> str:
        """As `parse` reads it, to the last digit."""
        return f"{_quoted(self.name)} {self.sign} {self.amount.written(exact=True)}"

    def __str__(self) -> str:
        return f"{_quoted(self.name)} {self.sign} {self.amount}"


@dataclass(frozen=True)
class Chosen:
    """A condition on what was chosen for a layer: `conv2 = dense`, `conv2 = svd`, `conv2 != dense`."""

    layer: str
    factorization: str
    negated: bool = False

    def holds(self, factorization: str) -> bool:
        """Whether it is met where this was chosen for the layer."""
        return (factorization == self.factorization) is not self.negated

    def __str__(self) -> str:
        return f"{_quoted(self.layer)} {'!=' if self.negated else '='} {self.factorization}"


Condition = Bound | Chosen


def parse_condition(text: str) -> Condition:
    """Read a bound on a measurement or an axis of a layer, or a condition on what was chosen for a layer.

    >>> parse_condition("conv2 = dense"), parse_condition("conv2.rank = 16").limit
    (Chosen(layer='conv2', factorization='dense', negated=False), 16.0)

    Raises:
        QueryError: it is neither.
    """
    found = _CONDITION.fullmatch(text)
    word = _WORD.fullmatch(found["rest"]) if found and found["sign"] in ("=", "==", "!=") else None
    if found is None or word is None or word[1] in ("inf", "infinity", "nan"):
        return Bound.parse(text)
    return Chosen(found["name"].strip("\"'"), word[1], negated=found["sign"] == "!=")


def _quoted(name: str) -> str:
    plain = name == name.strip() and not set("<>=!≤≥\"'") & set(name)
    return name if plain else f"'{name}'" if '"' in name else f'"{name}"'


def _no_bound(text: str, why: str = "") -> QueryError:
    if why:
        return QueryError(f"{text!r} is no bound. {why}")
    return QueryError(
        "A bound is NAME <= NUMBER (or <, >=, >), such as 'error <= 0.03', 'error <= dense + 0.01', "
        f"'macs <= 0.5 * dense' or 'macs <= 200k'; found {text!r}."
    )

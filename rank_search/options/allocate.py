"""The model of least error within bounds on its cost, chosen from an option table: no training, no search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final, overload

import numpy as np

from rank_search.basics import Amount, Float, html_table, text_table
from rank_search.errors import LayerError, QueryError
from rank_search.options.allocation import mean_shares, sweep
from rank_search.options.knapsack import Array, pick
from rank_search.options.table import Option, OptionTable
from rank_search.point import Choice, Point

Limit = float | int | str
"""The most that a cost may be: see `allocate`."""

_COSTS: Final = ("params", "macs", "bits")


@final
@dataclass(frozen=True, repr=False)
class Allocation:
    """What to make of each layer, what the model costs then, and how far its layers' outputs are off.

    Attributes:
        layers: a choice for each layer of the table; what is not here stays dense.
        error: Σ over the groups of the relative output errors: 0 for the dense model.
        gap: no other allocation within the bounds has an error below `error` − `gap`; 0: it is the optimum.
        params, macs, bits: of the whole model; bits of its parameters as they are stored, nothing coded.
        dense: the same three of the dense model.
    """

    layers: Mapping[str, Choice]
    error: float
    gap: float
    params: float
    macs: float
    bits: float
    dense: Mapping[str, float] = field(repr=False)

    @property
    def point(self) -> Point:
        """The choices as a search has them."""
        return Point(self.layers)

    def __repr__(self) -> str:
        return text_table(self._rows(), self._title)

    def _repr_html_(self) -> str:
        return html_table(self._rows(), self._title)

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {"layer": name, "factorization": choice.factorization, "values": _values(choice)}
            for name, choice in self.layers.items()
        ]

    @property
    def _title(self) -> str:
        shares = ", ".join(f"{getattr(self, name) / max(1, self.dense[name]):.1%} of the {name}" for name in _COSTS)
        least = f", at most {self.gap:.2g} above the least" if self.gap else ""
        return f"Allocation with {shares}; error {self.error:.4g}{least}"


def _values(choice: Choice) -> str:
    return ", ".join(f"{axis} {value:g}" for axis, value in choice.values.items())


@overload
def allocate(table: OptionTable) -> tuple[Allocation, ...]: ...
@overload
def allocate(
    table: OptionTable, *, params: Limit | None = ..., macs: Limit | None = ..., bits: Limit | None = ...
) -> Allocation: ...
def allocate(
    table: OptionTable, *, params: Limit | None = None, macs: Limit | None = None, bits: Limit | None = None
) -> Allocation | tuple[Allocation, ...]:
    """The allocation of least Σ error within bounds on the cost of the whole model; without bounds the front.

    A bound of at most 1 is a share of the dense model's cost, above 1 the cost itself; as text it is any amount of a
    study file: `"50%"`, `"200k"`, `"0.5 * dense"`. `bits` are those of the parameters as they are stored (32 each in
    float32): what coding saves is known after training, or see `pack_model`.

    Exact over the options of the table: with bounds the optimum of the multiple-choice knapsack problem, see `pick`,
    unless `gap` says how much better another one might be. The least Σ error of the layers' outputs is not always the
    least error of the model: a search learns what each layer's error does to the loss.

    Args:
        table: as `options` makes it.
        params, macs, bits: the most that the whole model may cost; one of them, or several at once.

    Returns:
        Without a bound, the corners of the front of Σ error against the mean of both shares, parameters and MACs: from
        the dense model, or what has no error, to the least cost. See `lagrangian_front`.

    Raises:
        LayerError: no allocation keeps the bounds; the message has the least that can be reached.
        QueryError: a bound is no amount, negative or not finite.

    >>> from rank_search.layers import Cost
    >>> from rank_search.options.cost_model import CostModel
    >>> allocate(OptionTable([], CostModel({}, {}, Cost(10, 100)), lambda layer, choice: 0.0), macs=1.0).macs
    100
    """
    wanted = {name: limit for name, limit in zip(_COSTS, (params, macs, bits), strict=True) if limit is not None}
    if not wanted:
        return tuple(allocation_of(table, table.chosen(each.chosen)) for each in sweep(table, mean_shares([])))
    limits = {name: _absolute(name, limit, _dense(table)) for name, limit in wanted.items()}
    rest = _rest(table)
    costs = [_costs(table, options, tuple(limits)) for options in table.of.values()]
    errors = [np.array([option.error for option in options]) for options in table.of.values()]
    found = pick(costs, errors, np.array([limits[name] - rest[name] for name in limits]))
    if found is None:
        raise LayerError(_unreachable(limits, _least(costs, tuple(limits), rest), _dense(table)))
    return allocation_of(table, table.chosen(found.chosen), found.gap)


def allocation_of(table: OptionTable, chosen: Sequence[Option], gap: float = 0.0) -> Allocation:
    """What these options, one for each group of a table, make of the model."""
    layers = {layer: choice for option in chosen for layer, choice in option.choices.items()}
    bits = _rest(table)["bits"] + sum(map(table.bits, chosen))
    error = sum(option.error for option in chosen)
    return Allocation(layers, error, gap, **table.total(chosen), bits=bits, dense=_dense(table))


def _dense(table: OptionTable) -> dict[str, float]:
    return {**table.dense, "bits": table.dense_bits}


def _rest(table: OptionTable) -> dict[str, float]:
    """What every allocation costs: all that no option is chosen for."""
    return {**table.rest, "bits": table.dense_bits - sum(table.bits(options[0]) for options in table.of.values())}


def _costs(table: OptionTable, options: Sequence[Option], names: Sequence[str]) -> Float[Array, "options bounds"]:
    rows = [{"params": each.params, "macs": each.macs, "bits": table.bits(each)} for each in options]
    return np.array([[row[name] for name in names] for row in rows], dtype=np.float64)


def _absolute(name: str, limit: Limit, dense: Mapping[str, float]) -> float:
    if isinstance(limit, str):
        limit = Amount.parse(limit, name).of(dense, name)
    elif limit <= 1:
        limit *= dense[name]
    if not 0 <= limit < math.inf:
        raise QueryError(
            f"The bound on {name} is {limit:g}; it is a number from 0 on. Give a share such as 0.5, or an amount "
            "such as 200k."
        )
    return limit


def _least(
    costs: Sequence[Float[Array, "_ bounds"]], names: Sequence[str], rest: Mapping[str, float]
) -> dict[str, float]:
    """The least that each cost can be if the others do not matter."""
    least = {name: sum(float(each[:, place].min()) for each in costs) for place, name in enumerate(names)}
    return {name: rest[name] + least[name] for name in names}


def _unreachable(limits: Mapping[str, float], least: Mapping[str, float], dense: Mapping[str, float]) -> str:
    asked = " and ".join(f"{name} ≤ {limit:,.6g}" for name, limit in limits.items())
    reached = ", ".join(
        f"{value:,.0f} {name} ({value / max(1, dense[name]):.1%} of dense)" for name, value in least.items()
    )
    alone = " each by itself" if len(limits) > 1 else ""
    return (
        f"No allocation keeps {asked}. The least that the options of this table reach is {reached}{alone}. Ask for "
        "more, or allow more layers or other factorizations ([layers] of the study file; in Python, layers= of "
        "options())."
    )

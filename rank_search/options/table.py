"""What each layer may become, with what it costs and how far its outputs are off: measured once, before any trial."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from rank_search.basics import html_table, text_table
from rank_search.errors import LayerError
from rank_search.options.cost_model import CostModel, normalized
from rank_search.options.fits import ErrorOf, Fits
from rank_search.options.ranges import AxisRange, Group
from rank_search.point import DENSE, Choice, Point

if TYPE_CHECKING:
    import pandas as pd

LADDER: Final = (
    0.002,
    0.004,
    0.006,
    0.008,
    0.011,
    0.015,
    0.03,
    0.045,
    0.06,
    0.08,
    0.1,
    0.125,
    0.15,
    0.175,
    0.2,
    0.235,
    0.27,
    0.31,
    0.35,
    0.4,
    0.45,
    0.5,
    0.6,
    0.8,
    1.0,
)
"""Fractions of an axis's largest value, finer where factorizations save.

The first ones differ where an axis has a hundred values or more."""

COARSE: Final = (0.02, 0.045, 0.08, 0.12, 0.2, 0.3, 0.4, 0.5, 0.62, 0.75)
"""The same for each of two axes, in all pairs that are not too unlike."""

UNLIKE: Final = 5.0
"""How many times the one fraction may be the other."""

SHOWN: Final = (0.75, 0.5, 0.25, 0.1)
"""Shares of a group's parameters at which a printed table shows the error."""

Choices = Mapping[str, Choice]


@dataclass(frozen=True)
class Option:
    """One way to choose for the layers of a group.

    Attributes:
        choices: by layer.
        params, macs: of these layers.
        error: E‖Wx − W'x‖² / E‖Wx‖² of the fit, summed over the layers: 0 for dense, 1 where a layer's outputs are
            lost; without calibration data, of the weights themselves.
    """

    choices: Choices
    params: int
    macs: float
    error: float

    @property
    def factorization(self) -> str:
        """The one that its layers have, as far as they are not dense."""
        return next((each.factorization for each in self.choices.values() if not each.is_dense), DENSE)

    def to_json(self) -> dict[str, Any]:
        """The option as a row: its layers, what they become, and what that costs."""
        chosen = dict.fromkeys(_in_short(choice) for choice in self.choices.values())
        return {
            "layer": ", ".join(self.choices),
            "form": " | ".join(chosen),
            "params": self.params,
            "macs": self.macs,
            "error": self.error,
        }


@final
class OptionTable:
    """The options of every group: a grid for each, and any other choice on demand.

    Dense comes first; of a factorization only what saves something (see `CostModel.saves`) and has a finite error. One
    axis is laid out on `LADDER`, two on pairs of `COARSE`, more on equal fractions of their ranges. It is iterated
    option by option, group after group; printed, and in a notebook, it is one line for each group.

    Args:
        groups: layers, or tied layers, and what may be chosen for them.
        costs: of a layer under a choice, and of all that nothing is chosen for.
        error_of: the relative output error of a layer under a choice; see `Fits`.
        round_to: whole-numbered axis values are multiples of this.
        dense_bits: of all parameters of the dense model as they are stored; default: what no option is chosen for is
            taken for float32.

    Attributes:
        of: the options of each group by its name, dense first.
        costs: as given.
        dense: params and macs of the whole dense model.
        rest: params and macs of what no option is chosen for.
    """

    def __init__(
        self,
        groups: Iterable[Group],
        costs: CostModel,
        error_of: ErrorOf,
        round_to: int = 1,
        dense_bits: int | None = None,
    ) -> None:
        self._groups = {group.name: group for group in groups}
        self.costs, self._error_of, self._round_to, self._dense_bits = costs, error_of, round_to, dense_bits
        self._known: dict[tuple[str, str], Option] = {}
        self.of = {name: tuple(self._grid(group)) for name, group in self._groups.items()}
        searched = [self.of[name][0] for name in self._groups]
        dense = costs.dense
        self.dense = dense
        self.rest = {
            "params": dense["params"] - sum(each.params for each in searched),
            "macs": dense["macs"] - sum(each.macs for each in searched),
        }

    def with_costs(self, costs: CostModel) -> OptionTable:
        """The same under another model of costs, which takes other choices for dense; no error is measured again."""
        return OptionTable(self._groups.values(), costs, self._error_of, self._round_to, self._dense_bits)

    def with_shares(self, shares: Mapping[str, float]) -> OptionTable:
        """The same, the errors of some layers times a factor; no error is measured again. See `Fits.with_shares`."""
        fits = self.fits.with_shares(shares)
        return OptionTable(self._groups.values(), self.costs, fits, self._round_to, self._dense_bits)

    @property
    def factorizations(self) -> tuple[str, ...]:
        """Every factorization of any group, once."""
        return tuple(dict.fromkeys(name for group in self._groups.values() for name in group.factorizations))

    @property
    def fits(self) -> Fits:
        """What the errors were measured on: layers, plugins, weights and their bases.

        Raises:
            LayerError: the errors come from elsewhere.
        """
        if not isinstance(self._error_of, Fits):
            raise LayerError(
                "This option table holds no weights, so nothing can be fitted from it. Make one by options()."
            )
        return self._error_of

    def chosen(self, places: Iterable[int]) -> tuple[Option, ...]:
        """The option at a place of each group, in the order of the groups."""
        return tuple(options[place] for options, place in zip(self.of.values(), places, strict=True))

    def total(self, chosen: Sequence[Option]) -> dict[str, float]:
        """Counted costs of the whole model, given an option for each group."""
        return {
            "params": self.rest["params"] + sum(each.params for each in chosen),
            "macs": self.rest["macs"] + sum(each.macs for each in chosen),
        }

    def bits(self, option: Option) -> int:
        """Of the parameters of an option's layers as they are stored: each as many as its dtype has, nothing coded."""
        geometry, cost = self.costs.geometry, self.costs.layer_cost
        layers = option.choices.items()
        return sum(8 * geometry(name).dtype.itemsize * cost(name, choice).params for name, choice in layers)

    @property
    def dense_bits(self) -> int:
        """Of all parameters of the dense model as they are stored."""
        if self._dense_bits is not None:
            return self._dense_bits
        return sum(self.bits(options[0]) for options in self.of.values()) + 32 * int(self.rest["params"])

    def describe(self, point: Point) -> tuple[Option, ...]:
        """What the point chooses for each group, on the grid or not."""
        return tuple(
            self._option({layer: point.layers.get(layer, Choice()) for layer in group.layers}, name)
            for name, group in self._groups.items()
        )

    def __iter__(self) -> Iterator[Option]:
        return itertools.chain.from_iterable(self.of.values())

    def __len__(self) -> int:
        return sum(map(len, self.of.values()))

    def __repr__(self) -> str:
        return text_table(self._lines(), self._title)

    def _repr_html_(self) -> str:
        return html_table(self._lines(), self._title)

    def to_pandas(self) -> pd.DataFrame:
        """A row for each option: group, layers, form, params, macs, error."""
        import pandas as pd

        rows = [{"group": name, **option.to_json()} for name, options in self.of.items() for option in options]
        return pd.DataFrame.from_records(rows)

    @property
    def _title(self) -> str:
        counted = f"{self.dense['params']:,} parameters, {self.dense['macs']:,} MACs"
        return f"{len(self)} options for {len(self.of)} layers or groups of layers; dense: {counted}"

    def _lines(self) -> list[dict[str, Any]]:
        """For each group, its dense cost and the least error that some shares of its parameters leave."""
        return [
            {"layer": ", ".join(self._groups[name].layers), "options": len(options)}
            | {"params": options[0].params, "macs": options[0].macs}
            | {f"error at {share:.0%}": _least_error(options, share) for share in SHOWN}
            for name, options in self.of.items()
        ]

    def _grid(self, group: Group) -> Iterator[Option]:
        seen: set[str] = set()
        for choices in _choices(group, self._round_to):
            smaller = {layer: normalized(self.costs, layer, choice) for layer, choice in choices.items()}
            option = self._option(smaller, group.name)
            key = _key(option.choices)
            if key not in seen and (not seen or (option.factorization != DENSE and math.isfinite(option.error))):
                seen.add(key)
                yield option

    def _option(self, choices: Choices, group: str) -> Option:
        key = group, _key(choices)
        if key not in self._known:
            found = [self.costs.layer_cost(layer, choice) for layer, choice in choices.items()]
            error = sum(self._error_of(layer, choice) for layer, choice in choices.items())
            self._known[key] = Option(choices, sum(c.params for c in found), sum(c.macs for c in found), error)
        return self._known[key]


def _least_error(options: Sequence[Option], share: float) -> float | None:
    return min((each.error for each in options if each.params <= share * options[0].params), default=None)


def _in_short(choice: Choice) -> str:
    return " ".join([choice.factorization, *(f"{axis} {value:g}" for axis, value in choice.values.items())])


def _key(choices: Choices) -> str:
    return repr([(layer, choice.to_json()) for layer, choice in choices.items()])


def _choices(group: Group, round_to: int) -> Iterator[Choices]:
    yield {layer: Choice() for layer in group.layers}
    for name in group.factorizations:
        count = max(len(by_name[name]) for by_name in group.axes.values())
        for fractions in _fractions(count):
            yield {
                layer: Choice(name, _values(by_name[name], fractions, round_to))
                for layer, by_name in group.axes.items()
            }


def _fractions(axes: int) -> Iterator[tuple[float, ...]]:
    if axes == 2:
        pairs = itertools.product(COARSE, repeat=2)
        yield from (pair for pair in pairs if max(pair) <= UNLIKE * min(pair))
    else:
        yield from ((fraction,) * axes for fraction in LADDER)


def _values(ranges: Sequence[AxisRange], fractions: Sequence[float], round_to: int) -> dict[str, int | float]:
    return {
        axis.name: axis.snap(axis.low + fraction * (axis.high - axis.low), round_to)
        for axis, fraction in zip(ranges, fractions, strict=False)
    }

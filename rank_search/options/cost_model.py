"""What a point costs, before anything is built or trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from rank_search.layers import Cost, Factorization, Layer, axes_of, is_pooled, layer_cost
from rank_search.options.form_speeds import Forms
from rank_search.point import Choice, Point

OF_MACS: Final = frozenset({"macs", "latency", "latency_ratio"})
OF_STORED: Final = frozenset({"bits", "bits_per_sample", "nonzeros"})
OF_PARAMS: Final = OF_STORED | {"params"}
"""Measurements that MACs, that the numbers of a trained model, and that parameters stand for before training."""


def judged_costs(asked: Iterable[str]) -> tuple[str, ...]:
    """The counted costs by which forms are judged where these measurements are asked for; both where none is a cost.

    >>> judged_costs(["error", "bits"]), judged_costs(["error"])
    (('params',), ('params', 'macs'))
    """
    names = frozenset(asked)
    found = [cost for cost, those in (("params", OF_PARAMS), ("macs", OF_MACS)) if those & names]
    return tuple(found) or ("params", "macs")


class CostModel:
    """Counted costs of points: the layers that are searched, plus everything else.

    Args:
        layers: the layers that may be factorized, by name.
        plugins: factorization classes by name.
        rest: cost of everything in the model that is not among `layers`.
        forms: how fast the factorized forms are; None where speed is not asked for.
        asked: the measurements that are asked for; see `judged_costs`.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        plugins: Mapping[str, type[Factorization]],
        rest: Cost,
        forms: Forms | None = None,
        asked: Iterable[str] = (),
    ) -> None:
        # Without their names, layers of one geometry share their counts.
        self._layers = {name: replace(layer, name="", aliases=()) for name, layer in layers.items()}
        self._pools = {name: tuple(each.name for each in layer.pool) or (name,) for name, layer in layers.items()}
        self._plugins = dict(plugins)
        self._sums: dict[tuple[object, ...], Cost] = {}
        self._rest = rest
        self._forms = forms
        self._asked = frozenset(asked)

    def with_forms(self, forms: Forms) -> CostModel:
        """The same costs, knowing how fast the forms are."""
        return CostModel(self._layers, self._plugins, self._rest, forms, self._asked)

    def cost(self, point: Point) -> dict[str, float]:
        """Parameters and MACs of the model that a point stands for; layers that it does not name are dense.

        >>> CostModel({}, {}, Cost(params=10, macs=100)).cost(Point({}))
        {'params': 10, 'macs': 100}
        """
        total = self._rest
        for name in self._layers:
            total = total + self.layer_cost(name, point.layers.get(name, Choice()))
        return {"params": total.params, "macs": total.macs}

    @property
    def dense(self) -> dict[str, float]:
        """Cost of the dense model."""
        return self.cost(Point({}))

    def geometry(self, name: str) -> Layer:
        """The layer without its name: layers of one geometry are equal."""
        return self._layers[name]

    def saves(self, name: str, choice: Choice) -> bool:
        """Whether a choice for a layer costs less than the dense layer: of what is asked for, one less and none more.

        Where it is known how fast the forms are, the choice must be faster, too. To look rows up takes no MACs, and no
        time beside the rest of a model: of such a layer the parameters decide.
        """
        gains = [dense - chosen for chosen, dense in self.judged(name, choice).values()]
        if choice.is_dense or min(gains) < 0 or max(gains) == 0:
            return False
        ratio = None if self._layers[name].one_hot else self.time_ratio(name, choice)
        return ratio is None or ratio < 1

    def judged(self, name: str, choice: Choice) -> dict[str, tuple[float, float]]:
        """The counted costs that decide whether it saves, each with the dense layer's.

        Where tied layers would share factors, they are those of the whole pool, which takes the choice together.
        What a form stores whose training makes weights zero (`trained_sparse`) is not known before: it counts as less.
        So does all that one costs whose training lowers its ranks (`trained_rank`).
        """
        together = self.together(name, choice)
        chosen, dense = self._of_all(together, choice), self._of_all(together, Choice())
        found = {"params": (float(chosen.params), float(dense.params)), "macs": (chosen.macs, dense.macs)}
        if self._asked & OF_STORED and not choice.is_dense and self._plugins[choice.factorization].trained_sparse:
            found["params"] = (-math.inf, found["params"][1])
        if not choice.is_dense and self._plugins[choice.factorization].trained_rank:
            found = {cost: (-math.inf, of_dense) for cost, (_, of_dense) in found.items()}
        is_table = all(self._layers[each].one_hot for each in together)
        wanted = ("params",) if is_table else judged_costs(self._asked)
        return {cost: found[cost] for cost in wanted}

    def least(self, point: Point) -> dict[str, float]:
        """As `cost`, of the least that training may make of a point: where it lowers ranks, they are the lowest."""
        return self.cost(replace(point, layers={name: self._lowest(name, each) for name, each in point.layers.items()}))

    def _lowest(self, name: str, choice: Choice) -> Choice:
        if choice.is_dense or not (plugin := self._plugins[choice.factorization]).trained_rank:
            return choice
        low = {axis.name: int(axis.low) for axis in axes_of(plugin, self._layers[name]) if axis.integer}
        return Choice(choice.factorization, {**choice.values, **low})

    def time_ratio(self, name: str, choice: Choice) -> float | None:
        """How long the form takes in units of the dense layer; None where that is not known.

        Of layers that share factors the mean, weighed by the dense layers' MACs.
        """
        if self._forms is None:
            return None
        parts = []
        for each in self.together(name, choice):
            ratio = self._forms.ratio(each, choice.factorization, self.layer_cost(each, choice).macs)
            parts += [] if ratio is None else [(ratio, self.layer_cost(each, Choice()).macs)]
        if len(parts) < 2:
            return parts[0][0] if parts else None
        return sum(ratio * macs for ratio, macs in parts) / sum(macs for _, macs in parts)

    def layer_cost(self, name: str, choice: Choice) -> Cost:
        """What one layer costs under a choice; what it shares with others is a cost of the first of them."""
        return layer_cost(self._layers[name], self._plugin(choice), choice)

    def together(self, name: str, choice: Choice) -> tuple[str, ...]:
        """The layers that take the choice together: more than one where tied layers share factors."""
        return self._pools[name] if is_pooled(self._plugin(choice)) else (name,)

    def _of_all(self, together: tuple[str, ...], choice: Choice) -> Cost:
        """What these layers cost in all; for the layers of a pool, which all ask for it, it is summed once."""
        if len(together) == 1:
            return self.layer_cost(together[0], choice)
        key = together, choice.factorization, tuple(sorted(choice.values.items()))
        if key not in self._sums:
            self._sums[key] = sum((self.layer_cost(each, choice) for each in together), Cost(0, 0))
        return self._sums[key]

    def _plugin(self, choice: Choice) -> type[Factorization] | None:
        return None if choice.is_dense else self._plugins[choice.factorization]


def normalized(costs: CostModel, layer: str, choice: Choice) -> Choice:
    """The choice, or dense where it saves nothing that is asked for."""
    return choice if choice.is_dense or costs.saves(layer, choice) else Choice()

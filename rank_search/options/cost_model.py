"""What a point costs, before anything is built or trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rank_search.layers import Cost, Factorization, Layer, layer_cost
from rank_search.options.form_speeds import Forms
from rank_search.point import Choice, Point


class CostModel:
    """Counted costs of points: the layers that are searched, plus everything else.

    Args:
        layers: the layers that may be factorized, by name.
        plugins: factorization classes by name.
        rest: cost of everything in the model that is not among `layers`.
        forms: how fast the factorized forms are; None where speed is not asked for.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        plugins: Mapping[str, type[Factorization]],
        rest: Cost,
        forms: Forms | None = None,
    ) -> None:
        # Without their names, layers of one geometry share their counts.
        self._layers = {name: replace(layer, name="", aliases=()) for name, layer in layers.items()}
        self._plugins = dict(plugins)
        self._rest = rest
        self._forms = forms

    def with_forms(self, forms: Forms) -> CostModel:
        """The same costs, knowing how fast the forms are."""
        return CostModel(self._layers, self._plugins, self._rest, forms)

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
        """Whether a choice for a layer has both fewer parameters and fewer MACs than the dense layer.

        Where it is known how fast the forms are, the choice must be faster, too. To look rows up takes no MACs, and no
        time beside the rest of a model: of such a layer the parameters decide.
        """
        chosen, dense = self.layer_cost(name, choice), self.layer_cost(name, Choice())
        if self._layers[name].one_hot:
            return chosen.params < dense.params
        smaller = chosen.params < dense.params and chosen.macs < dense.macs
        return smaller and self._is_faster(name, choice, chosen.macs)

    def _is_faster(self, name: str, choice: Choice, macs: float) -> bool:
        ratio = None if self._forms is None else self._forms.ratio(name, choice.factorization, macs)
        return ratio is None or ratio < 1

    def layer_cost(self, name: str, choice: Choice) -> Cost:
        """What one layer costs under a choice."""
        plugin = None if choice.is_dense else self._plugins[choice.factorization]
        return layer_cost(self._layers[name], plugin, choice)


def normalized(costs: CostModel, layer: str, choice: Choice) -> Choice:
    """The choice, or dense where it would not be smaller than dense."""
    return choice if choice.is_dense or costs.saves(layer, choice) else Choice()

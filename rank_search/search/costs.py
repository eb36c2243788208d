"""What a point costs, before anything is built or trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rank_search.layers import Cost, Factorization, Layer, layer_cost
from rank_search.point import Choice, Point


class CostModel:
    """Counted costs of points: the layers that are searched, plus everything else.

    Args:
        layers: the layers that may be factorized, by name.
        plugins: factorization classes by name.
        rest: cost of everything in the model that is not among `layers`.
    """

    def __init__(self, layers: Mapping[str, Layer], plugins: Mapping[str, type[Factorization]], rest: Cost) -> None:
        # Without their names, layers of one geometry share their counts.
        self._layers = {name: replace(layer, name="", aliases=()) for name, layer in layers.items()}
        self._plugins = dict(plugins)
        self._rest = rest

    def cost(self, point: Point) -> dict[str, int]:
        """Parameters and MACs of the model that a point stands for; layers that it does not name are dense.

        >>> CostModel({}, {}, Cost(params=10, macs=100)).cost(Point({}))
        {'params': 10, 'macs': 100}
        """
        total = self._rest
        for name in self._layers:
            total = total + self._layer(name, point.layers.get(name, Choice()))
        return {"params": total.params, "macs": total.macs}

    @property
    def dense(self) -> dict[str, int]:
        """Cost of the dense model."""
        return self.cost(Point({}))

    def saves(self, name: str, choice: Choice) -> bool:
        """Whether a choice for a layer has both fewer parameters and fewer MACs than the dense layer."""
        chosen, dense = self._layer(name, choice), self._layer(name, Choice())
        return chosen.params < dense.params and chosen.macs < dense.macs

    def _layer(self, name: str, choice: Choice) -> Cost:
        plugin = None if choice.is_dense else self._plugins[choice.factorization]
        return layer_cost(self._layers[name], plugin, choice)

"""What a model is made of: every layer, dense or factorized, and everything else that has parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast, final

from torch import nn

from rank_search.basics import html_table, text_table
from rank_search.layers.calls import Example
from rank_search.layers.costs import Cost, count_params, layer_cost, macs_by_module
from rank_search.layers.factorization import Factorization
from rank_search.layers.inventory import Inventory, Skipped, take_inventory
from rank_search.layers.layer import Layer
from rank_search.layers.looking import in_evaluation
from rank_search.layers.opened_models import opened
from rank_search.layers.opening import is_folded
from rank_search.layers.plugins import name_of
from rank_search.layers.pools import borrowed
from rank_search.layers.tied_layers import tied_in
from rank_search.point import Choice

if TYPE_CHECKING:
    import pandas as pd


@final
@dataclass(frozen=True)
class ModelLayer:
    """One layer of a model, or something else in it that has parameters.

    Attributes:
        layer: its dotted name.
        kind: the class of the module, with "(folded)" if its weight is computed from others; of a factorization the
            name of its plugin, of what is tied to a layer its kind.
        shape: of its weight; of a factorization that of the weight it stands for.
        values: the axis values of a factorization, such as its rank; empty for anything else.
        params, macs: counted; parameters that several rows share count in the first of them, and what is tied to a
            layer counts in that layer.
        skipped: why it is no layer of its own; empty for what is, factorized or not.
    """

    layer: str
    kind: str
    shape: tuple[int, ...]
    values: Mapping[str, float]
    params: int
    macs: float
    skipped: str = ""

    def to_json(self) -> dict[str, Any]:
        """The row as it is printed."""
        return {
            "layer": self.layer,
            "kind": self.kind,
            "shape": "×".join(map(str, self.shape)),
            "values": ", ".join(f"{axis} {value:g}" for axis, value in self.values.items()),
            "params": self.params,
            "macs": self.macs,
            "skipped": self.skipped,
        }


@final
@dataclass(frozen=True, repr=False)
class ModelLayers:
    """The rows of a model in the order of its modules, and what all of it costs."""

    rows: tuple[ModelLayer, ...]
    total: Cost

    def __iter__(self) -> Iterator[ModelLayer]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, layer: str) -> ModelLayer:
        """The row of that name.

        Raises:
            KeyError: there is none.
        """
        return {row.layer: row for row in self.rows}[layer]

    def __repr__(self) -> str:
        return text_table([row.to_json() for row in self], self._title)

    def _repr_html_(self) -> str:
        return html_table([row.to_json() for row in self], self._title)

    def to_pandas(self) -> pd.DataFrame:
        """A row for each layer, indexed by its name."""
        import pandas as pd

        return pd.DataFrame.from_records([row.to_json() for row in self], index="layer")

    @property
    def _title(self) -> str:
        return f"{len(self)} layers, {self.total.params:,} parameters, {self.total.macs:,} MACs"


def layers(model: nn.Module, example: Example) -> ModelLayers:
    """What a model is made of, layer by layer, with counted parameters and MACs.

    Works on a dense model, and on one whose layers are factorized: a factorized layer is one row, with the name of its
    factorization and its ranks. What cannot be factorized has a row with the reason. Every parameter is in one row.

    Args:
        model: it is run on the example in evaluation mode, and not changed.
        example: what one forward takes, as a batch of 1: a tensor, a tuple by position, or a dictionary by name.

    Raises:
        LayerError: a weight holds NaN or infinity.
        TaskError: the model does not run on the example, or is quantized.

    Complexity: a few forwards on the example.

    >>> import torch
    >>> found = layers(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.zeros(1, 4))
    >>> [(row.layer, row.params, row.macs) for row in found]
    [('0', 15, 12)]
    """
    given, model = model, opened(model, example)
    inventory = take_inventory(model, example)
    factorized = {name: each for name, each in model.named_modules() if isinstance(each, Factorization)}
    with in_evaluation(model):
        macs = macs_by_module(model, example) if factorized else {}
    inside = tuple(f"{name}." for name in factorized)
    rows = {name: _dense(model, given, inventory, name) for name in inventory.layers if not name.startswith(inside)}
    rows |= {each.name: _skipped(each) for each in inventory.skipped if not each.name.startswith(inside)}
    rows |= {name: _factorized(model, name, macs) for name in factorized}
    for layer in [*inventory.layers.values(), *(replace(each.layer, name=name) for name, each in factorized.items())]:
        rows |= {tie.name: _tied(tie, layer) for tie in layer.ties}
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    ordered = sorted(rows.values(), key=lambda row: order.get(row.layer, order.get(row.layer.rpartition(".")[0], 0)))
    return ModelLayers(tuple(ordered), inventory.dense)


def _dense(model: nn.Module, given: nn.Module, inventory: Inventory, name: str) -> ModelLayer:
    layer, cost = inventory.layers[name], layer_cost(inventory.layers[name], None, Choice())
    kind = type(model.get_submodule(name)).__name__ + (" (folded)" if is_folded(given, name) else "")
    return ModelLayer(name, kind, layer.shape, {}, cost.params, cost.macs)


def _factorized(model: nn.Module, name: str, macs: Mapping[str, float]) -> ModelLayer:
    module = cast("Factorization", model.get_submodule(name))
    ties = [tie.name for tie in module.layer.ties]
    params = count_params(module) - borrowed(module) + sum(count_params(model.get_submodule(tie)) for tie in ties)
    total = sum(macs.get(each, 0) for each in (name, *ties))
    return ModelLayer(name, name_of(type(module)), module.layer.shape, module.values, params, total)


def _tied(tie: Layer, layer: Layer) -> ModelLayer:
    return ModelLayer(tie.name, tie.kind, tie.shape, {}, 0, 0, tied_in(layer.name))


def _skipped(each: Skipped) -> ModelLayer:
    return ModelLayer(each.name, each.kind, each.shape, {}, each.params, each.macs, each.reason)

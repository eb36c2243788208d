"""A model read back from data. Reading runs nothing, and neither reading nor running compiles or unpickles anything:
the graph is walked operator by operator, and only what `operators` allows can be named in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from rank_search.basics import named_leaves
from rank_search.errors import ExportError
from rank_search.programs import (
    CONSTANTS,
    Ref,
    Sizes,
    Step,
    arranged,
    check_order,
    filled,
    in_order,
    operator_named,
    run,
    with_last_uses,
)

_DAMAGED: Final = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError)
"""RecursionError, and OverflowError of a number beyond floats, among them."""


def from_json(graph: Mapping[str, Any], tensors: Mapping[str, Tensor], sizes: Sizes | None = None) -> nn.Module:
    """The module that a graph and its tensors describe, in evaluation mode.

    Args:
        sizes: those of the inputs that it answers for; None: all that its operators take.

    Raises:
        ExportError: the graph is malformed or names an operator that is not allowed.
    """
    try:
        return LoadedModel(graph, tensors, sizes).eval()
    except _DAMAGED as error:
        raise ExportError(
            f"The model's graph is damaged: {type(error).__name__}: {error}. Export the model again."
        ) from error


class LoadedModel(nn.Module):
    """A graph that is walked operator by operator; its tensors are buffers under their dotted names."""

    def __init__(self, graph: Mapping[str, Any], tensors: Mapping[str, Tensor], sizes: Sizes | None = None) -> None:
        super().__init__()
        self._inputs: list[str] = []
        self._targets: dict[str, str] = {}
        self._outputs: list[Any] = []
        steps: list[Step] = []
        for entry in graph["nodes"]:
            if entry["op"] == "input":
                self._inputs.append(str(entry["name"]))
            elif entry["op"] == "tensor":
                self._targets[str(entry["name"])] = str(entry["target"])
            elif entry["op"] == "call":
                steps.append(_step(entry))
            else:
                self._outputs = [_from_json(each) for each in entry["args"]]
        check_order([*self._inputs, *self._targets], steps, self._outputs)
        self._steps = with_last_uses(steps, self._outputs)
        self._structure = graph["structure"]
        arranged(self._structure, self._outputs)
        self._names = [str(name) for name in graph.get("arguments", self._inputs)]
        self._given_as = [str(name) for name in graph.get("parameters", self._names)]
        self._fixed = dict(graph.get("fixed", {}))
        self._sizes = _of_inputs(sizes, self._names)
        for target in self._targets.values():
            _put(self, target, tensors[target])

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the model returns, in the same structure; an input can be given by its name.

        What came in containers when the model was exported is taken in the same ones, too.

        Raises:
            ExportError: it was not exported for inputs of these sizes.
            TypeError: these are not its inputs.
        """
        if self._given_as != self._names or self._fixed:
            inputs, named = self._spread(inputs, named)
        values: dict[str, Any] = dict(zip(self._inputs, in_order(self._names, inputs, named), strict=True))
        if self._sizes is not None:
            self._sizes.check([each.shape for each in values.values()])
        values |= {name: _got(self, target) for name, target in self._targets.items()}
        run(self._steps, values)
        return arranged(self._structure, [filled(each, values) for each in self._outputs])

    def _spread(self, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Tensors by name out of containers, and without what is as it was when the model was exported."""
        if not all(isinstance(each, Tensor) for each in inputs):
            named, inputs = {**dict(zip(self._given_as, inputs, strict=False)), **named}, ()
        found = {name: each for key, value in named.items() for name, each in named_leaves(value, key)}
        return inputs, {name: each for name, each in found.items() if not self._is_fixed(name, each)}

    def _is_fixed(self, name: str, value: Any) -> bool:
        return name in self._fixed and not isinstance(value, Tensor) and bool(self._fixed[name] == value)


def _step(entry: Mapping[str, Any]) -> Step:
    arguments = [_from_json(each) for each in entry["args"]]
    named = {str(key): _from_json(each) for key, each in entry["kwargs"].items()}
    return Step(str(entry["name"]), operator_named(str(entry["target"])), arguments, named)


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "node":
        return Ref(str(content))
    if kind == "float":
        return float(content)
    if kind == "complex":
        return complex(*map(float, content))
    if kind == "device":
        return torch.device("cpu")
    return CONSTANTS[kind, content]


def _of_inputs(sizes: Sizes | None, names: list[str]) -> Sizes | None:
    """The sizes, under the names of the graph's inputs."""
    if sizes is None:
        return None
    if len(sizes.shapes) != len(names):
        raise ValueError(f"its manifest knows {len(sizes.shapes)} inputs, its graph {len(names)}")
    return replace(sizes, names=tuple(names))


def _put(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Keep a tensor as a buffer under its dotted name, which may be one of a module's own attributes."""
    *path, leaf = name.split(".")
    for part in path:
        model = _inside(model, part)
    model._buffers[leaf] = tensor


def _inside(model: nn.Module, name: str) -> nn.Module:
    found = model._modules.get(name)
    if found is None:
        found = model._modules[name] = nn.Module()
    return found


def _got(model: nn.Module, name: str) -> Any:
    *path, leaf = name.split(".")
    for part in path:
        model = _inside(model, part)
    return model._buffers[leaf]

"""A traced model as data: a JSON graph of PyTorch's own operators, and the tensors that it names."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from rank_search.errors import ExportError
from rank_search.export.operators import gives_nothing, name_of

_TORCH_VALUES: Final[Mapping[type, str]] = {
    torch.dtype: "dtype",
    torch.layout: "layout",
    torch.memory_format: "memory_format",
}
_STORED: Final = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def to_json(program: ExportedProgram) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The graph as JSON data, and the tensors it names.

    Raises:
        ExportError: the graph changes its own buffers, uses what is not an operator of PyTorch's `aten`, or gives
            something else than tensors in tuples, lists and dictionaries.
    """
    signature = program.graph_signature
    if any(spec.kind is not OutputKind.USER_OUTPUT for spec in signature.output_specs):
        raise ExportError("Only a model that changes nothing in evaluation mode can be exported; this one does.")
    stored = {spec.arg.name: str(spec.target) for spec in signature.input_specs if spec.kind in _STORED}
    everything = {**program.state_dict, **program.constants}
    nodes = [_node_to_json(node, stored) for node in program.graph.nodes if not gives_nothing(node.target)]
    graph = {"nodes": nodes, "structure": _structure(program)}
    return graph, {target: everything[target] for target in stored.values()}


def _node_to_json(node: fx.Node, stored: Mapping[str, str]) -> dict[str, Any]:
    if node.op == "placeholder" and node.name in stored:
        return {"op": "tensor", "name": node.name, "target": stored[node.name]}
    if node.op == "placeholder":
        return {"op": "input", "name": node.name}
    if node.op == "output":
        return {"op": "output", "args": _to_json(node.args[0])}
    if node.op != "call_function":
        raise ExportError(f"A model with the construct {node.op!r} cannot be written as data; use --format pt2.")
    return {
        "op": "call",
        "name": node.name,
        "target": name_of(node.target),
        "args": _to_json(list(node.args)),
        "kwargs": {key: _to_json(value) for key, value in node.kwargs.items()},
    }


def _to_json(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.device):
        return {"device": "cpu"}
    if type(value) in _TORCH_VALUES:
        return {_TORCH_VALUES[type(value)]: str(value).removeprefix("torch.")}
    raise ExportError(f"A value of type {type(value).__name__} cannot be written as data; use --format pt2.")


def _structure(program: ExportedProgram) -> Any:
    """How the flat outputs make what the model returns: an output is its number, a container a marked list."""
    spec = program.call_spec.out_spec
    if spec is None:
        raise ExportError("A model must return tensors to be exported.")
    return _structure_of(pytree.tree_unflatten(list(range(spec.num_leaves)), spec))


def _structure_of(value: Any) -> Any:
    if type(value) is int:
        return value
    if type(value) in (tuple, list):
        return {type(value).__name__: [_structure_of(item) for item in value]}
    if type(value) in (dict, OrderedDict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _structure_of(item) for key, item in value.items()}}
    raise ExportError(
        f"A model that returns a {type(value).__name__} cannot be written as data: tensors, tuples, lists and "
        "dictionaries with text keys can. Use --format pt2."
    )

"""A traced model as data: a JSON graph of PyTorch's own operators, and tensors in safetensors.

Reading one back runs no code of the file's own: only operators of the `aten` namespace and a few arithmetic
functions on sizes can be named in it, and nothing is unpickled.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from rank_search.errors import ExportError

_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    name: getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "mod", "neg", "getitem", "eq", "ne", "le", "lt", "ge", "gt")
}
_REFUSED: Final = frozenset({"from_file"})  # the one aten operator that opens files
_TORCH_VALUES: Final[Mapping[type, str]] = {
    torch.dtype: "dtype",
    torch.layout: "layout",
    torch.memory_format: "memory_format",
}
_STORED: Final = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def to_json(program: ExportedProgram) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The graph as JSON data, and the tensors it names.

    Raises:
        ExportError: the graph changes its own buffers, or uses what is not an `aten` operator.
    """
    signature = program.graph_signature
    if any(spec.kind is not OutputKind.USER_OUTPUT for spec in signature.output_specs):
        raise ExportError("Only a model that changes nothing in evaluation mode can be exported; this one does.")
    stored = {spec.arg.name: str(spec.target) for spec in signature.input_specs if spec.kind in _STORED}
    everything = {**program.state_dict, **program.constants}
    nodes = [_node_to_json(node, stored) for node in program.graph.nodes]
    spec = program.call_spec.out_spec
    if spec is None:
        raise ExportError("A model must return tensors to be exported.")
    graph = {"nodes": nodes, "outputs": pytree.treespec_dumps(spec)}
    return graph, {target: everything[target] for target in stored.values()}


def from_json(graph: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """The module that a graph and its tensors describe, in evaluation mode.

    Raises:
        ExportError: the graph is malformed or names an operator that is not allowed.
    """
    try:
        return _module(graph, tensors)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise ExportError(
            f"A model's graph must be the one that was exported; this one is damaged: "
            f"{type(error).__name__}: {error}. Export the model again."
        ) from error


def _node_to_json(node: fx.Node, stored: Mapping[str, str]) -> dict[str, Any]:
    if node.op == "placeholder":
        return (
            {"op": "tensor", "name": node.name, "target": stored[node.name]}
            if node.name in stored
            else {
                "op": "input",
                "name": node.name,
            }
        )
    if node.op == "output":
        return {"op": "output", "args": _to_json(node.args[0])}
    if node.op != "call_function":
        raise ExportError(f"A model with the construct {node.op!r} cannot be written as data; use --format pt2.")
    return {
        "op": "call",
        "name": node.name,
        "target": _name_of(node.target),
        "args": _to_json(list(node.args)),
        "kwargs": {key: _to_json(value) for key, value in node.kwargs.items()},
    }


def _name_of(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload) and target.namespace == "aten":
        return f"aten.{target._schema.name.removeprefix('aten::')}.{target._overloadname}"
    name: str = getattr(target, "__name__", str(target))
    if _FUNCTIONS.get(name) is target:
        return name
    raise ExportError(f"A model that uses {target} cannot be written as data; use --format pt2.")


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


def _module(data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    used: dict[str, Tensor] = {}
    for entry in data["nodes"]:
        if entry["op"] == "input":
            nodes[entry["name"]] = graph.placeholder(entry["name"])
        elif entry["op"] == "tensor":
            used[entry["target"]] = tensors[entry["target"]]
            nodes[entry["name"]] = graph.create_node("get_attr", entry["target"])
        elif entry["op"] == "call":
            arguments = tuple(_from_json(entry["args"], nodes))
            named = {key: _from_json(value, nodes) for key, value in entry["kwargs"].items()}
            nodes[entry["name"]] = graph.call_function(_function(entry["target"]), arguments, named)
        else:
            graph.output(_from_json(entry["args"], nodes))
    return _Loaded(fx.GraphModule(_tree(used), graph), str(data["outputs"])).eval()


class _Loaded(nn.Module):
    """A graph whose flat outputs are put back into the structure that the model returned."""

    def __init__(self, graph: fx.GraphModule, outputs: str) -> None:
        super().__init__()
        self.graph = graph
        self.outputs = outputs
        self._spec = pytree.treespec_loads(outputs)

    def forward(self, *inputs: Tensor) -> Any:
        return pytree.tree_unflatten(self.graph(*inputs), self._spec)


def _function(name: str) -> Callable[..., Any]:
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    namespace, _, rest = name.partition(".")
    operation, _, overload = rest.partition(".")
    if namespace != "aten" or operation in _REFUSED:
        raise ExportError(f"A model's graph may name operators of PyTorch's aten only; found {name!r}.")
    return getattr(getattr(torch.ops.aten, operation), overload)  # type: ignore[no-any-return]


def _from_json(value: Any, nodes: Mapping[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_from_json(item, nodes) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "node":
        return nodes[content]
    if kind == "float":
        return float(content)
    if kind == "device":
        return torch.device(content)
    found = getattr(torch, content)
    if kind not in _TORCH_VALUES.values() or type(found) not in _TORCH_VALUES:
        raise ExportError(f"A model's graph holds the unknown value {value!r}.")
    return found


def _tree(tensors: Mapping[str, Tensor]) -> nn.Module:
    """A module with each tensor as a buffer under its dotted name."""
    root = nn.Module()
    for name, tensor in tensors.items():
        *path, leaf = name.split(".")
        parent = root
        for part in path:
            if part not in dict(parent.named_children()):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.register_buffer(leaf, tensor)
    return root

"""A traced model as data: a JSON graph of PyTorch's own operators, and the tensors that it names."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from rank_search.errors import ExportError
from rank_search.export.arguments import Arguments
from rank_search.export.quiet import quiet
from rank_search.programs import gives_nothing, name_of
from rank_search.tasks import PLAIN

_TORCH_VALUES: Final[Mapping[type, str]] = {
    torch.dtype: "dtype",
    torch.layout: "layout",
    torch.memory_format: "memory_format",
}
_STORED: Final = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def to_json(program: ExportedProgram, arguments: Arguments | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The graph as JSON data, and the tensors it names.

    Args:
        arguments: how the model is called, if it was not traced with tensors by position: for the names of its inputs.

    A program that changes buffers or inputs does so after it is loaded, too.

    Raises:
        ExportError: the graph uses what is not an operator of PyTorch's `aten`, or gives something else than tensors
            in tuples, lists and dictionaries.
    """
    plain = _flat(program)
    signature = plain.graph_signature
    everything = {**plain.state_dict, **plain.constants}
    specs = [spec for spec in signature.input_specs if spec.kind in _STORED]
    stored = _once({spec.arg.name: str(spec.target) for spec in specs}, everything)
    nodes = [
        each
        for node in plain.graph.nodes
        if not gives_nothing(node.target)
        for each in (_outputs(node, plain) if node.op == "output" else [_node_to_json(node, stored)])
    ]
    graph = {"nodes": nodes, "structure": _structure(program), **_called(nodes, arguments)}
    return graph, {target: everything[target] for target in stored.values()}


def _once(stored: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """What the graph calls its tensors, and the name of each; a parameter of several names has the first of them."""
    first: dict[int, str] = {}
    named: dict[str, str] = {}
    for own, target in stored.items():
        is_parameter = isinstance(tensors[target], nn.Parameter)
        named[own] = first.setdefault(id(tensors[target]), target) if is_parameter else target
    return named


def _called(nodes: Sequence[Mapping[str, Any]], arguments: Arguments | None) -> dict[str, Any]:
    """The names of the inputs, where they are others than in the graph; what comes in containers; and what is fixed."""
    if arguments is None:
        return {}
    own = [node["name"] for node in nodes if node["op"] == "input"]
    names = [node if name.isdecimal() else name for node, name in zip(own, arguments.names, strict=True)]
    if arguments.by_position:
        return {} if names == own else {"arguments": names}
    fixed = {name: each for name, each in arguments.values.items() if isinstance(each, PLAIN)}
    return {"arguments": names, "parameters": list(arguments.parameters), "fixed": fixed}


def _flat(program: ExportedProgram) -> ExportedProgram:
    """The program without the graphs inside it that `torch.no_grad` and the like make of a forward's parts."""
    nested = [node for node in program.graph.nodes if node.op == "get_attr"]
    if not nested:
        return program
    with quiet():
        flat: ExportedProgram = program.run_decompositions({})
    return flat


def _outputs(node: fx.Node, program: ExportedProgram) -> list[dict[str, Any]]:
    """What is returned, after what is written back."""
    values, specs = node.args[0], program.graph_signature.output_specs
    assert isinstance(values, tuple | list)
    returned, calls = [], []
    sources = {str(spec.target): spec.arg.name for spec in program.graph_signature.input_specs}
    for place, (value, spec) in enumerate(zip(values, specs, strict=True)):
        if spec.kind is OutputKind.USER_OUTPUT:
            returned.append(_to_json(value))
        elif spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION):
            target = str(spec.target)
            changed = sources[target] if spec.kind is OutputKind.BUFFER_MUTATION else target
            calls.append(_call(f"written back {place}", "aten.copy_.default", [{"node": changed}, _to_json(value)]))
        else:
            raise ExportError(f"The model's graph has outputs of the kind {spec.kind.name}, which cannot be written.")
    return [*calls, {"op": "output", "args": returned}]


def _call(name: str, target: str, args: list[Any], kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"op": "call", "name": name, "target": target, "args": args, "kwargs": dict(kwargs or {})}


def _node_to_json(node: fx.Node, stored: Mapping[str, str]) -> dict[str, Any]:
    if node.op == "placeholder" and node.name in stored:
        return {"op": "tensor", "name": node.name, "target": stored[node.name]}
    if node.op == "placeholder":
        return {"op": "input", "name": node.name}
    if node.op != "call_function":
        raise ExportError(
            f"The model has the construct {node.op!r}, which cannot be written as data. Use --format pt2."
        )
    kwargs = {key: _to_json(value) for key, value in node.kwargs.items()}
    return _call(node.name, name_of(node.target), _to_json(list(node.args)), kwargs)


def _to_json(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, complex):
        return {"complex": [str(value.real), str(value.imag)]}
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
        raise ExportError("The model returns no tensors; an exported model must.")
    return _structure_of(pytree.tree_unflatten(list(range(spec.num_leaves)), spec))


def _structure_of(value: Any) -> Any:
    if type(value) is int:
        return value
    if type(value) in (tuple, list):
        return {type(value).__name__: [_structure_of(item) for item in value]}
    if type(value) in (dict, OrderedDict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _structure_of(item) for key, item in value.items()}}
    raise ExportError(
        f"The model returns a {type(value).__name__}, which cannot be written as data: tensors, tuples, lists and "
        "dictionaries with text keys can. Use --format pt2."
    )

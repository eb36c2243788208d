"""What an exported program takes and gives: names, structure, sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch

from rank_search.errors import ExportError
from rank_search.programs.conditions import Condition, condition_of
from rank_search.programs.numbers import DTYPES, numbered
from rank_search.programs.operator_calls import value_of
from rank_search.programs.sizes import BATCH, Sizes

_SYMBOL: Final = re.compile(r"Symbol\('(\w+)'(?:, \w+=\w+)*\)")
_LONGEST: Final = 10_000  # letters of a condition
_TENSOR: Final = object()
_PAIR: Final = 2  # torch.export has no smaller size that varies, but what it writes is true of 1


@final
@dataclass(frozen=True)
class Input:
    """A tensor that a program takes.

    Attributes:
        value: its name in the graph.
        name: the parameter of forward that it is given as.
        traced: its shape when the program was exported.
    """

    value: str
    name: str
    traced: tuple[int, ...]
    dtype: torch.dtype


@final
@dataclass(frozen=True)
class Signature:
    """What a program takes and gives.

    Attributes:
        stored: for each of its own tensors in the graph, the name in its state or among its constants.
        fixed: inputs that are constants, by their names in the graph.
        positional: how many of the inputs are given by position; the others are given by name.
        outputs: what it gives, as arguments of calls.
        structure: how these make what forward returns: an output is its number, a container a marked list.
    """

    inputs: tuple[Input, ...]
    positional: int
    stored: Mapping[str, str]
    fixed: Mapping[str, Any]
    outputs: tuple[Any, ...]
    structure: Any
    sizes: Sizes


def signature_of(program: Mapping[str, Any]) -> Signature:
    """What a program takes and gives, out of its JSON.

    Raises:
        ExportError: it takes or gives what is not read, or changes its own tensors.
    """
    module = program["graph_module"]
    specs, graph = module["signature"], module["graph"]
    taken = [found for spec in specs["input_specs"] if (found := _taken(spec)) is not None]
    stored = dict(found for spec in specs["input_specs"] if (found := _stored(spec)) is not None)
    given = [name for name, value in taken if value is _TENSOR]
    fixed = {name: value for name, value in taken if value is not _TENSOR}
    call = module["module_call_graph"][0]["signature"]
    is_tensor = [value is _TENSOR for _, value in taken]
    parameters, positional = _parameters(json.loads(call["in_spec"]), call.get("forward_arg_names"), is_tensor, given)
    inputs = tuple(_input(name, value, graph) for name, value in zip(parameters, given, strict=True))
    outputs = tuple(_outputs(specs["output_specs"]))
    structure = _structure(json.loads(call["out_spec"]), iter(range(len(outputs))))
    return Signature(inputs, positional, stored, fixed, outputs, structure, _sizes(program, inputs, given))


def _taken(spec: Mapping[str, Any]) -> tuple[str, Any] | None:
    """What forward is given: its name in the graph, and its value where that is a constant."""
    match spec:
        case {"user_input": {"arg": {"as_tensor": {"name": str(name)}}}}:
            return name, _TENSOR
        case {"constant_input": {"name": str(name), "value": value}}:
            return name, value_of(value)
    if _stored(spec) is None:
        raise ExportError(f"It takes {_kind(spec)}, which is not read; tensors are.")
    return None


def _stored(spec: Mapping[str, Any]) -> tuple[str, str] | None:
    """A tensor of the program's own: what the graph calls it, and its name."""
    match spec:
        case {"parameter": {"arg": {"name": str(name)}, "parameter_name": str(target)}}:
            return name, target
        case {"buffer": {"arg": {"name": str(name)}, "buffer_name": str(target)}}:
            return name, target
        case {"tensor_constant": {"arg": {"name": str(name)}, "tensor_constant_name": str(target)}}:
            return name, target
    return None


def _kind(spec: Mapping[str, Any]) -> str:
    return ", ".join(map(str, spec)).replace("_", " ")


def _outputs(specs: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    for spec in specs:
        match spec:
            case {"user_output": {"arg": argument}}:
                yield value_of(argument)
            case {"buffer_mutation": {"buffer_name": name}} | {"parameter_mutation": {"parameter_name": name}}:
                raise ExportError(
                    f"It changes its own {name!r} in each forward. Export the network after model.eval()."
                )
            case _:
                raise ExportError(f"It gives {_kind(spec)}, which is not read; tensors that it returns are.")


# ---- the structure of what comes in and goes out ---------------------------------------------------------


def _parts(spec: Any) -> tuple[str | None, Any, list[Any]]:
    """The kind of a container, its context, and what is inside; of a leaf no kind."""
    kind, context = spec["type"], spec["context"]
    return kind, json.loads(context) if kind == "builtins.dict" else None, spec["children_spec"]


def _parameters(
    in_spec: Any, names: Sequence[str] | None, taken: Sequence[bool], values: Sequence[str]
) -> tuple[list[str], int]:
    """The parameter of forward that each tensor is given as, and how many are given by position."""
    _, _, (positional, named) = _parts(in_spec[1])
    leaves = _parts(positional)[2]
    flat = [*leaves, *_parts(named)[2]]
    if any(_parts(each)[0] is not None for each in flat) or len(flat) != len(taken):
        raise ExportError("It takes tensors in containers; only tensors by position or by name are read.")
    called = names if names is not None and len(names) == len(flat) else _called(taken, values)
    tensors = [str(name) for name, is_taken in zip(called, taken, strict=True) if is_taken]
    return tensors, sum(taken[: len(leaves)])


def _called(taken: Sequence[bool], values: Sequence[str]) -> list[str]:
    """The names in the graph, where forward takes any number of inputs."""
    own = iter(values)
    return [_next(own) if is_taken else "" for is_taken in taken]


def _next(values: Iterator[Any]) -> Any:
    for each in values:
        return each
    raise ValueError("there are more places than tensors")


def _structure(spec: Any, numbers: Iterator[int]) -> Any:
    return _arrangement(spec[1], numbers)


def _arrangement(spec: Any, numbers: Iterator[int]) -> Any:
    kind, keys, inside = _parts(spec)
    if kind is None:
        return _next(numbers)
    content = [_arrangement(each, numbers) for each in inside]
    if kind == "builtins.dict":
        return {"dict": dict(zip(map(str, keys), content, strict=True))}
    if kind in ("builtins.tuple", "builtins.list"):
        return {kind.removeprefix("builtins."): content}
    raise ExportError(f"It returns a {kind}; tensors, tuples, lists and dictionaries are read.")


# ---- sizes -----------------------------------------------------------------------------------------------


def _input(name: str, value: str, graph: Mapping[str, Any]) -> Input:
    meta = graph["tensor_values"][value]
    traced = tuple(_traced(each) for each in meta["sizes"])
    return Input(value, name, traced, numbered(meta["dtype"], DTYPES))


def _traced(size: Mapping[str, Any]) -> int:
    match size:
        case {"as_int": int(number)} | {"as_expr": {"hint": {"as_int": int(number)}}}:
            return number
    return _PAIR


def _sizes(program: Mapping[str, Any], inputs: Sequence[Input], values: Sequence[str]) -> Sizes:
    """The sizes that it takes; those that vary have the names of their symbols, the first of all that of the batch."""
    graph = program["graph_module"]["graph"]
    sizes = [graph["tensor_values"][value]["sizes"] for value in values]
    known = [[_size(each) for each in shape] for shape in sizes]
    batch = known[0][0] if known and known[0] and isinstance(known[0][0], str) else None
    shapes = tuple(tuple(BATCH if each == batch else each for each in shape) for shape in known)
    ends = {str(symbol): _range(each) for symbol, each in program["range_constraints"].items()}
    ranges = {BATCH if symbol == batch else symbol: each for symbol, each in ends.items()}
    names = tuple(each.name for each in inputs)
    return Sizes(names, shapes, ranges, tuple(_conditions(program.get("guards_code") or (), names)))


def _size(size: Mapping[str, Any]) -> int | str:
    """A number, or the name of what stands for any."""
    match size:
        case {"as_int": int(number)}:
            return number
        case {"as_expr": {"expr_str": str(text)}}:
            symbol = _SYMBOL.fullmatch(text)
            return symbol[1] if symbol else text[:80]
    raise TypeError(f"{size!r} is no size")


def _range(ends: Mapping[str, Any]) -> tuple[int, int | None]:
    least, most = ends["min_val"], ends["max_val"]
    return (1 if least is None or least <= _PAIR else int(least)), None if most is None else int(most)


def _conditions(guards: Sequence[str], names: Sequence[str]) -> Iterator[Condition]:
    """What the trace took for granted of sizes; the text is read as arithmetic, and never evaluated."""
    for guard in guards:
        try:
            if len(guard) > _LONGEST:
                raise ValueError("it is too long")
            yield condition_of(guard, names)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            if ".size()" in guard:
                raise ExportError(
                    f"It holds only where {guard[:200]!r}, a condition that cannot be read. Export it for fewer sizes "
                    "that vary."
                ) from None

"""A model as a graph: for any batch, for more sizes where they are asked for, and never for a size that was not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from rank_search.errors import ExportError
from rank_search.export.arguments import Arguments
from rank_search.export.needed import only_needed
from rank_search.export.plain_outputs import plain_forward, plain_program
from rank_search.export.quiet import quiet, said
from rank_search.layers import Example, layer_by_layer
from rank_search.programs import BATCH, Condition, Sizes, condition_of

Place = tuple[int, int]
"""An input by its number, and one of its dimensions."""

_PAIR: Final = 2  # torch.export takes a size of 1 for a constant


@final
@dataclass(frozen=True)
class Traced:
    """A model's graph, the sizes for which it stands for the model, and how it is called."""

    program: ExportedProgram
    sizes: Sizes
    arguments: Arguments


def trace(model: nn.Module, example: Example, dynamic: Iterable[Place] = ()) -> Traced:
    """The model as a graph, for batches of any size if the model allows it.

    The batch is the first dimension of each input that is as long there as the first input.

    Args:
        dynamic: further dimensions that are to take several sizes.

    Raises:
        ExportError: torch.export cannot trace it, or fixes one of these dimensions.
    """
    arguments, asked = Arguments.of(model, example), set(dynamic)
    batch = {place for place in _batch(arguments.tensors) if place not in asked}
    found = _tried(model, arguments, asked, batch) if batch else None
    if found is None:
        try:
            found = _traced(model, arguments, asked, set())
        except ExportError:
            raise
        except Exception as error:
            raise ExportError(
                f"torch.export cannot trace the model: {said(error)}. "
                "Data-dependent control flow in forward is the usual reason."
            ) from error
    for place, dimension in sorted(asked):
        if not found.sizes.varies(place, dimension):
            raise ExportError(
                f"Dimension {dimension} of input {found.sizes.names[place]!r} cannot be dynamic: torch.export fixes it "
                f"at {found.sizes.shapes[place][dimension]}, because forward uses that size as a constant. Leave it "
                "out of --dynamic ('none' leaves out what the data has, too), or change forward."
            )
    return found


def _batch(inputs: Sequence[Tensor]) -> set[Place]:
    first = next((each.shape[0] for each in inputs if each.dim()), None)
    return {(place, 0) for place, each in enumerate(inputs) if each.dim() and each.shape[0] == first}


def _tried(model: nn.Module, arguments: Arguments, asked: set[Place], batch: set[Place]) -> Traced | None:
    """The graph for any batch; None if there is none."""
    try:
        found = _traced(model, arguments, asked, batch)
    except Exception:  # noqa: BLE001 - for any reason; a fixed batch is tried next
        return None
    return found if all(found.sizes.varies(*place) for place in batch) else None


def _traced(model: nn.Module, arguments: Arguments, asked: set[Place], batch: set[Place]) -> Traced:
    free, inputs = asked | batch, arguments.tensors
    grown = resized(inputs, {place: max(_PAIR, inputs[place[0]].shape[place[1]]) for place in free})
    hints: tuple[Any, ...] = tuple(
        {dimension: Dim.AUTO if (place, dimension) in free else Dim.STATIC for dimension in range(each.dim())}
        for place, each in enumerate(grown)
    )
    shapes = _as_given(arguments, hints) if arguments.by_position else dict(zip(arguments.names, hints, strict=True))
    call = arguments.written(grown)
    with quiet(), layer_by_layer(), plain_forward(model, arguments) as changed:
        torch._dynamo.reset()  # control flow that has run before is compiled, and what was compiled cannot be traced
        program = torch.export.export(changed, call.positional, dict(call.named), dynamic_shapes=shapes)
        program = plain_program(only_needed(program))
    return Traced(program, _sizes(program, arguments, batch), arguments)


def _as_given(arguments: Arguments, hints: tuple[Any, ...]) -> tuple[Any, ...]:
    """Those of each parameter of forward; one that takes any number of inputs, such as *inputs, has them in a tuple."""
    own = sum(not name.isdecimal() for name in arguments.names)
    return (*hints[:own], hints[own:]) if own < len(hints) else hints


def resized(inputs: Sequence[Tensor], sizes: Mapping[Place, int]) -> tuple[Tensor, ...]:
    """The inputs, repeated or cut along some dimensions to these sizes."""
    found = list(inputs)
    for (place, dimension), size in sizes.items():
        each = found[place]
        times = -(-size // max(1, each.shape[dimension]))
        found[place] = torch.cat([each] * times, dimension).narrow(dimension, 0, size).contiguous()
    return tuple(new if new.shape != old.shape else old for old, new in zip(inputs, found, strict=True))


# ---- the sizes of a graph --------------------------------------------------------------------------------


def _sizes(program: ExportedProgram, arguments: Arguments, batch: set[Place]) -> Sizes:
    specs = program.graph_signature.input_specs
    given = {spec.arg.name for spec in specs if spec.kind is InputKind.USER_INPUT}
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.name in given and node.op == "placeholder"]
    nodes = [node.name for node in program.graph.nodes if node.name in given and node.op == "placeholder"]
    names = [own if not own.isdecimal() else node for own, node in zip(arguments.names, nodes, strict=True)]
    called = _called(shapes, names, batch)
    ranges = _ranges(program, called)
    known = tuple(tuple(called.get(str(size), size) for size in shape) for shape in shapes)
    conditions = list(_conditions(program, names))
    fixed = _fixed(known, ranges, conditions)
    known = tuple(tuple(fixed.get(size, size) for size in shape) for shape in known)
    ranges |= {name: (1, ranges.get(name, (1, None))[1]) for name in _single(known, arguments.tensors)}
    return Sizes(
        tuple(names),
        known,
        {name: ends for name, ends in ranges.items() if name not in fixed},
        tuple(each for each in conditions if _is_open(each, known)),
    )


def _single(shapes: Sequence[Sequence[int | str]], inputs: Sequence[Tensor]) -> Iterator[str]:
    """Names of sizes that are 1 in the example, with which outputs are compared."""
    for shape, each in zip(shapes, inputs, strict=True):
        yield from (name for name, size in zip(shape, each.shape, strict=True) if isinstance(name, str) and size == 1)


def _fixed(
    shapes: Sequence[Sequence[int | str]],
    ranges: Mapping[str, tuple[int, int | None]],
    conditions: Iterable[Condition],
) -> dict[int | str, int]:
    """Names that stand for one size: the trace went on from there with a number."""
    found: dict[int | str, int] = {name: least for name, (least, most) in ranges.items() if least == most}
    for condition in conditions:
        match condition:
            case ["==", ["size", int(place), int(dimension)], int(size)]:
                found[shapes[place][dimension]] = size
    return found


def _is_open(condition: Condition, shapes: Sequence[Sequence[int | str]]) -> bool:
    """Whether a condition is about a size that may vary."""
    if isinstance(condition, int):
        return False
    word, *rest = condition
    if word == "size":
        return isinstance(shapes[rest[0]][rest[1]], str)
    return any(_is_open(each, shapes) for each in rest)


def _called(shapes: Sequence[Any], names: Sequence[str], batch: set[Place]) -> dict[str, str]:
    """A name for each symbol: "batch", or the input and dimension where it is first."""
    called: dict[str, str] = {}
    places = [(place, dimension) for place, shape in enumerate(shapes) for dimension in range(len(shape))]
    for place, dimension in sorted(places, key=lambda each: each not in batch):
        size = shapes[place][dimension]
        if not isinstance(size, int):
            called.setdefault(str(size), BATCH if (place, dimension) in batch else f"{names[place]}.{dimension}")
    return called


def _ranges(program: ExportedProgram, called: Mapping[str, str]) -> dict[str, tuple[int, int | None]]:
    found = {}
    for symbol, ends in program.range_constraints.items():
        if str(symbol) not in called:  # the value of a tensor, which may have no least
            continue
        least, most = ends.lower, ends.upper
        found[called[str(symbol)]] = (max(1, int(least)), int(most) if most.is_Integer and most < 1 << 62 else None)
    return found


def _conditions(program: ExportedProgram, names: Sequence[str]) -> Iterable[Condition]:
    """What the trace took for granted; guards on anything but sizes do not matter to a graph of plain operators."""
    for guard in getattr(program, "_guards_code", None) or ():
        try:
            yield condition_of(guard, names)
        except (ValueError, SyntaxError):
            if ".size()" in guard:
                raise ExportError(
                    f"The graph holds only where {guard}, a condition that cannot be written down. Export "
                    "the model for a fixed size."
                ) from None

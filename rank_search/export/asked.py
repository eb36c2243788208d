"""Which dimensions are to be dynamic: those that are named, and those that a task's data has at several sizes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from torch import nn

from rank_search.errors import ExportError
from rank_search.export.arguments import Arguments
from rank_search.export.tracing import Place
from rank_search.layers import Example
from rank_search.tasks import Seen

NONE: Final = "none"


def places_asked(
    dynamic: Iterable[str] | None, model: nn.Module, example: Example, seen: Seen | None = None
) -> set[Place]:
    """The dimensions that `dynamic` names, and those in which what was seen differs from the example.

    Args:
        dynamic: each a dimension of all inputs ("1"), one of an input by its name or number ("ids:1", "0:-1"), or
            "none": not those that were seen.

    Raises:
        ExportError: there is no such input or dimension.
    """
    words = [dynamic] if isinstance(dynamic, str) else list(dynamic or ())
    arguments = Arguments.of(model, example)
    found = set() if NONE in words or seen is None else _varied(arguments, seen)
    for word in words:
        if word != NONE:
            found |= _named(word, arguments)
    return found


def _varied(arguments: Arguments, seen: Seen) -> set[Place]:
    return {
        (place, dimension)
        for place, (name, known) in enumerate(zip(arguments.names, _shapes(arguments), strict=True))
        for dimension in range(1, len(known))
        for shapes in map(dict, seen.shapes)
        if len(shapes.get(name, ())) == len(known) and shapes[name][dimension] != known[dimension]
    }


def _shapes(arguments: Arguments) -> list[tuple[int, ...]]:
    return [tuple(each.shape) for each in arguments.tensors]


def _named(word: str, arguments: Arguments) -> set[Place]:
    name, colon, number = word.rpartition(":")
    if not _is_whole(number):
        raise _unknown(word, arguments)
    places = range(len(arguments.names)) if not colon else [_place(word, name, arguments)]
    sizes = {place: arguments.tensors[place].dim() for place in places}
    found = {(place, int(number) % count) for place, count in sizes.items() if -count <= int(number) < count}
    if not found:
        raise _unknown(word, arguments)
    return found


def _place(word: str, name: str, arguments: Arguments) -> int:
    if name in arguments.names:
        return arguments.names.index(name)
    if name.isdecimal() and int(name) < len(arguments.names):
        return int(name)
    raise _unknown(word, arguments)


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _unknown(word: str, arguments: Arguments) -> ExportError:
    known = ", ".join(f"{name} {shape}" for name, shape in zip(arguments.names, _shapes(arguments), strict=True))
    return ExportError(
        f"A dynamic dimension is one of the model's inputs: DIMENSION, INPUT:DIMENSION or {NONE}; found {word!r}. "
        f"The inputs are {known}."
    )

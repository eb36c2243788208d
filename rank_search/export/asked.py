"""Which dimensions are to be dynamic: those that are named, and those that a task's data has at several sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from torch import Tensor, nn

from rank_search.errors import ExportError
from rank_search.export.tracing import Place, input_names
from rank_search.tasks import Seen

NONE: Final = "none"


def places_asked(
    dynamic: Iterable[str] | None, model: nn.Module, inputs: Sequence[Tensor], seen: Seen | None = None
) -> set[Place]:
    """The dimensions that `dynamic` names, and those in which what was seen differs from the example.

    Args:
        dynamic: each a dimension of all inputs ("1"), one of an input by its name or number ("ids:1", "0:-1"), or
            "none": not those that were seen.

    Raises:
        ExportError: there is no such input or dimension.
    """
    words = [dynamic] if isinstance(dynamic, str) else list(dynamic or ())
    found = set() if NONE in words or seen is None else _varied(inputs, seen)
    names = input_names(model, len(inputs))
    for word in words:
        if word != NONE:
            found |= _named(word, names, inputs)
    return found


def _varied(inputs: Sequence[Tensor], seen: Seen) -> set[Place]:
    known = [tuple(each.shape) for each in inputs]
    alike = [shapes for shapes in seen.shapes if list(map(len, shapes)) == list(map(len, known))]
    return {
        (place, dimension)
        for place, shape in enumerate(known)
        for dimension in range(1, len(shape))
        if any(shapes[place][dimension] != shape[dimension] for shapes in alike)
    }


def _named(word: str, names: Sequence[str], inputs: Sequence[Tensor]) -> set[Place]:
    name, colon, number = word.rpartition(":")
    if not _is_whole(number):
        raise _unknown(word, names, inputs)
    places = range(len(inputs)) if not colon else [_place(word, name, names, inputs)]
    found = {
        (place, int(number) % inputs[place].dim())
        for place in places
        if -inputs[place].dim() <= int(number) < inputs[place].dim()
    }
    if not found:
        raise _unknown(word, names, inputs)
    return found


def _place(word: str, name: str, names: Sequence[str], inputs: Sequence[Tensor]) -> int:
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < len(inputs):
        return int(name)
    raise _unknown(word, names, inputs)


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _unknown(word: str, names: Sequence[str], inputs: Sequence[Tensor]) -> ExportError:
    known = ", ".join(f"{name} {tuple(each.shape)}" for name, each in zip(names, inputs, strict=True))
    return ExportError(
        f"A dynamic dimension is one of the model's inputs: DIMENSION, INPUT:DIMENSION or {NONE}; found {word!r}. "
        f"The inputs are {known}."
    )

"""What a model is called with, as its export takes it: tensors by name, and all else as it was in the example."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from rank_search.errors import ExportError
from rank_search.layers import Call, Example, bound, with_tensors
from rank_search.tasks import PLAIN, Given, Seen, leaves_of

_FIXED = (*PLAIN, torch.dtype, torch.device)


class _Slot(int):
    """Stands for a tensor of a call."""


@final
@dataclass(frozen=True)
class Arguments:
    """The tensors of a call by name, in the order of forward's parameters, and how a call is made of others.

    Attributes:
        names: of the tensors: that of the parameter, and in containers the names on the way, joined by underscores.
        tensors: those of the example.
        values: all else that forward was given, or takes by default, by name.
        parameters: those of forward that tensors come in by.
        by_position: whether the example is tensors by position, and nothing else.
    """

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    values: Mapping[str, Any]
    parameters: tuple[str, ...]
    by_position: bool
    _call: Call
    _order: tuple[int, ...]

    @classmethod
    def of(cls, model: nn.Module, example: Example) -> Arguments:
        """Those of an example.

        Raises:
            ExportError: forward does not take it, or it has what a graph cannot hold.
        """
        call, tensors = Call.of(example), list[Tensor]()
        given = _bound(
            model, Call(*with_tensors((call.positional, dict(call.named)), lambda each: _slot(tensors, each)))
        )
        leaves = leaves_of(given)
        places = {_name(name): int(each) for name, each in leaves.items() if isinstance(each, _Slot)}
        if len(places) < len(tensors):
            raise ExportError("Two inputs of the model have one name. Name the parts of example() otherwise.")
        values = {name: each for name, each in leaves.items() if not isinstance(each, _Slot)}
        _check(values)
        own = tuple(name for name, each in given.items() if any(isinstance(leaf, _Slot) for leaf in _leaves(each)))
        plain = not call.named and all(isinstance(each, Tensor) for each in call.positional)
        order = tuple(list(places.values()).index(number) for number in range(len(tensors)))
        return cls(tuple(places), tuple(tensors[each] for each in places.values()), values, own, plain, call, order)

    def call(self, tensors: Sequence[Tensor]) -> Call:
        """The call with other tensors, in the order of the names."""
        filled = iter([tensors[place] for place in self._order])
        parts = with_tensors((self._call.positional, dict(self._call.named)), lambda _: next(filled))
        return Call(*parts)

    def written(self, tensors: Sequence[Tensor]) -> Call:
        """How what was written is called with the same."""
        if self.by_position:
            return Call(tuple(tensors), {})
        return Call((), dict(zip(self.names, tensors, strict=True)))

    def taken(self, given: Given) -> tuple[tuple[Tensor, ...], list[str]]:
        """The tensors of these names in what a forward was given, and the names of those beside them.

        Raises:
            ExportError: some are not there, or something else has another value.
        """
        found = {_name(name): each for name, each in leaves_of(given).items()}
        tensors = {name: each for name, each in found.items() if isinstance(each, Tensor)}
        if missing := [name for name in self.names if name not in tensors]:
            raise ExportError(
                f"evaluate() calls the model without {', '.join(missing)}; the task's example() has "
                f"{', '.join(self.names)}. Let example() be what evaluate() gives the model."
            )
        for name, each in found.items():
            if not isinstance(each, (Tensor, *_FIXED)):
                raise ExportError(
                    f"evaluate() calls the model with a {type(each).__name__} as {name}; inputs must be tensors. "
                    "Give such values to the model when it is made."
                )
        return tuple(tensors[name] for name in self.names), [name for name in tensors if name not in self.names]


def _slot(tensors: list[Tensor], tensor: Tensor) -> Any:
    tensors.append(tensor)
    return _Slot(len(tensors) - 1)


def _leaves(value: Any) -> list[Any]:
    return list(leaves_of({"": value}).values())


def _bound(model: nn.Module, call: Call) -> dict[str, Any]:
    try:
        return bound(model, call)
    except TypeError as error:
        raise ExportError(
            f"The model's forward does not take the example: {error}. Check the task's example()."
        ) from error


def _name(text: str) -> str:
    """A name that a parameter may have; a number stays one."""
    found = re.sub(r"\W", "_", text)
    return found if (found.isidentifier() and not keyword.iskeyword(found)) or found.isdecimal() else f"input_{found}"


def _check(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not isinstance(value, _FIXED):
            raise ExportError(
                f"The model is called with a {type(value).__name__} as {name}; an exported model takes tensors, in "
                "dictionaries, lists, tuples and dataclasses. Leave it out of example()."
            )


def completed(model: nn.Module, example: Example, seen: Seen) -> Example:
    """The example with the numbers, switches and words that a task's measurements were seen to give forward.

    Raises:
        ExportError: they gave several.
    """
    call = Call.of(example)
    try:
        own = bound(model, call)
    except TypeError:
        return example
    other = {
        name: value
        for name, value in seen.values
        if (name not in own or isinstance(own[name], PLAIN)) and own.get(name) != value and not name.isdecimal()
    }
    for name in other:
        if len(found := sorted(str(value) for key, value in seen.values if key == name)) > 1:
            raise ExportError(
                f"evaluate() calls the model with several values of {name}: {', '.join(found)}; an exported model has "
                "one. Give it to the model when it is made."
            )
    if not other:
        return example
    rest = {name: value for name, value in own.items() if name not in other}
    return _by_name(model, {**rest, **other})


def _by_name(model: nn.Module, values: Mapping[str, Any]) -> Call:
    """A call by name as far as forward allows it."""
    parameters = inspect.signature(model.forward).parameters
    first = [
        name
        for name in values
        if name.isdecimal() or (name in parameters and parameters[name].kind is inspect.Parameter.POSITIONAL_ONLY)
    ]
    return Call(tuple(values[name] for name in first), {key: each for key, each in values.items() if key not in first})


def signed(forward: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """The function, as one that takes these names."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in names]
    )
    return forward

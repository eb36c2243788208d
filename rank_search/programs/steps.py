"""A graph of calls, as it is read from a file: walked call by call, and never compiled to code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, final

import torch

from rank_search.programs.operators import name_of, operator_named

CONSTANTS: Final[Mapping[tuple[str, str], object]] = {
    (kind.__name__, str(value).removeprefix("torch.")): value
    for kind in (torch.dtype, torch.layout, torch.memory_format)
    for value in vars(torch).values()
    if isinstance(value, kind)
}
"""PyTorch's own values that an argument may be, by their kind and name."""


@final
@dataclass(frozen=True)
class Ref:
    """Stands for the value of an earlier step, or an input or tensor of the graph."""

    name: str


@final
@dataclass(frozen=True)
class Step:
    """One call.

    Attributes:
        makes: the name of its value; where it gives several, a list of names, or of such lists.
        function: what is called; None: the layer of this name.
        args, kwargs: what with; `Ref`s stand for values.
        last_used: values that no later step needs.
    """

    makes: Any
    function: Callable[..., Any] | None
    args: Sequence[Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    layer: str = ""
    last_used: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Its function by name: PyTorch's operators cannot be pickled."""
        name = "" if self.function is None else name_of(self.function)
        return _again, (self.makes, name, self.args, self.kwargs, self.layer, self.last_used)

    def __deepcopy__(self, memo: object) -> Step:
        """Nothing changes a step."""
        return self


def _again(makes: Any, name: str, *rest: Any) -> Step:
    return Step(makes, operator_named(name) if name else None, *rest)


def run(
    steps: Iterable[Step], values: dict[str, Any], layer: Callable[[str], Callable[..., Any]] | None = None
) -> None:
    """Walk the steps; their values are put among the given ones, and taken away after their last use.

    Args:
        layer: the layer of a name.
    """
    for step in steps:
        called = step.function
        if called is None:
            assert layer is not None
            called = layer(step.layer)
        arguments = [filled(each, values) for each in step.args]
        options = {key: filled(each, values) for key, each in step.kwargs.items()}
        _keep(values, step.makes, called(*arguments, **options))
        for name in step.last_used:
            del values[name]


def _keep(values: dict[str, Any], makes: Any, result: Any) -> None:
    if isinstance(makes, str):
        values[makes] = result
        return
    for name, each in zip(makes, result, strict=True):
        _keep(values, name, each)


def filled(value: Any, values: Mapping[str, Any]) -> Any:
    """What an argument is, with values in the place of their names."""
    if isinstance(value, Ref):
        return values[value.name]
    return [filled(item, values) for item in value] if isinstance(value, list) else value


def in_order(names: Sequence[str], given: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
    """All inputs of a graph in the order of their names, of which the last may be given by name.

    Raises:
        TypeError: these are not its inputs.
    """
    rest = names[len(given) :]
    if len(given) + len(named) != len(names) or any(name not in named for name in rest):
        found = len(given) + len(named)
        raise TypeError(f"This model was given {found} inputs; it takes {len(names)}: {', '.join(names)}")
    return (*given, *(named[name] for name in rest))


def arranged(structure: Any, outputs: Sequence[Any]) -> Any:
    """The flat outputs of a graph in a structure: an output is its number, a container `{"tuple": [...]}` and so on."""
    if isinstance(structure, int):
        return outputs[structure]
    ((kind, content),) = structure.items()
    if kind == "dict":
        return {key: arranged(item, outputs) for key, item in content.items()}
    items = [arranged(item, outputs) for item in content]
    return {"tuple": tuple, "list": list}[kind](items)


def references(value: Any) -> Iterator[str]:
    """The names of the values in an argument."""
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def names_in(makes: Any) -> Iterator[str]:
    """The names of the values that a step makes."""
    if isinstance(makes, str):
        yield makes
    else:
        for each in makes:
            yield from names_in(each)


def used_by(step: Step) -> set[str]:
    """The names of the values that a step is called with."""
    return {name for value in (*step.args, *step.kwargs.values()) for name in references(value)}


def check_order(given: Iterable[str], steps: Iterable[Step], outputs: list[Any]) -> None:
    """Each value is made once, before it is used.

    Raises:
        ValueError: one is not.
    """
    known: set[str] = set()
    for name in given:
        _add(known, name)
    for step in steps:
        _require(used_by(step), known)
        for name in names_in(step.makes):
            _add(known, name)
    _require(references(outputs), known)


def _add(known: set[str], name: str) -> None:
    if name in known:
        raise ValueError(f"two values are named {name!r}")
    known.add(name)


def _require(names: Iterable[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{name!r} is used before it is made")


def with_last_uses(steps: Sequence[Step], outputs: list[Any]) -> list[Step]:
    """The steps, each with the values that nothing after it needs: so memory is that of the model itself."""
    needed, marked = set(references(outputs)), []
    for step in reversed(steps):
        over = (used_by(step) | set(names_in(step.makes))) - needed
        marked.append(replace(step, last_used=tuple(sorted(over))))
        needed |= over
    return marked[::-1]

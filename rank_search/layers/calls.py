"""What a model is called with: an example by position or by name, with tensors anywhere inside."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rank_search.basics import named_leaves

Example = Any
"""What a forward takes: a tuple is what it is called with by position, a dictionary (any mapping) by name, and anything
else is its one argument. Tensors may stand anywhere inside, in dictionaries, lists, tuples and dataclasses."""


@final
@dataclass(frozen=True)
class Call:
    """What a model is called with."""

    positional: tuple[Any, ...]
    named: Mapping[str, Any]

    @classmethod
    def of(cls, example: Example) -> Call:
        """How a model is called on an example.

        >>> Call.of({"ids": 1}), Call.of((1, 2)), Call.of([3])
        (Call(positional=(), named={'ids': 1}), Call(positional=(1, 2), named={}), Call(positional=([3],), named={}))
        """
        if isinstance(example, Call):
            return example
        if isinstance(example, Mapping):
            return cls((), dict(example))
        return cls(example if isinstance(example, tuple) else (example,), {})

    def on(self, module: Callable[..., Any]) -> Any:
        """Call it."""
        return module(*self.positional, **self.named)


def forward(module: nn.Module, example: Example) -> Any:
    """Call the module on an example."""
    return Call.of(example).on(module)


def with_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """A value with the function applied to each tensor inside; containers are of the types they were.

    >>> with_tensors({"ids": torch.ones(2), "more": [torch.zeros(1), None]}, lambda each: each.numel())
    {'ids': 2, 'more': [1, None]}
    """
    return with_leaves(value, lambda each: isinstance(each, Tensor), function)


def with_leaves(value: Any, is_leaf: Callable[[Any], bool], function: Callable[[Any], Any]) -> Any:
    """A value with the function applied to each leaf inside; a container may be one, too.

    >>> with_leaves([1, (2, "three")], lambda each: isinstance(each, int), lambda each: -each)
    [-1, (-2, 'three')]
    """
    if is_leaf(value):
        return function(value)
    if isinstance(value, Mapping):
        return _with_items(value, {key: with_leaves(each, is_leaf, function) for key, each in value.items()})
    if isinstance(value, tuple | list):
        parts = [with_leaves(each, is_leaf, function) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if is_dataclass(value) and not isinstance(value, type):
        made = copy.copy(value)
        for each in fields(value):
            object.__setattr__(made, each.name, with_leaves(getattr(value, each.name), is_leaf, function))
        return made
    return value


def _with_items(value: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    if type(value) is dict:
        return items
    made: Any = copy.copy(value)
    try:
        for key, each in items.items():
            made[key] = each
    except TypeError:  # a mapping that cannot be changed
        return items
    return made


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors in an example or in a model's outputs, in their order."""
    leaves = [leaf for _, each in named_leaves(value) for leaf in pytree.tree_leaves(each)]
    return [each for each in leaves if isinstance(each, Tensor)]


def fresh(example: Example) -> Example:
    """The example for a forward that may change it in place."""
    return with_tensors(example, torch.Tensor.clone)


def repeated(example: Example, times: int) -> Example:
    """So many copies of an example in one batch.

    A tensor has the batch along its first dimension if it is as long there as the first tensor; others stay.

    >>> repeated({"ids": torch.ones(1, 3), "positions": torch.arange(3)}, 2)["ids"].shape
    torch.Size([2, 3])
    """
    first = next((each.shape[0] for each in tensors_of(example) if each.dim()), None)

    def again(tensor: Tensor) -> Tensor:
        return torch.cat([tensor] * times) if tensor.dim() and tensor.shape[0] == first else tensor

    return with_tensors(example, again)


def bound(model: nn.Module, call: Call) -> dict[str, Any]:
    """What each parameter of forward is given, by its name and in their order, with the defaults of those left out.

    What a forward takes as `*args` has its number for a name.

    Raises:
        TypeError: forward does not take it.
    """
    signature = inspect.signature(model.forward)
    arguments = signature.bind(*call.positional, **call.named)
    arguments.apply_defaults()
    found: dict[str, Any] = {}
    for name, value in arguments.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            found |= {str(len(found) + place): each for place, each in enumerate(value)}
        elif kind is inspect.Parameter.VAR_KEYWORD:
            found |= dict(sorted(value.items()))
        else:
            found[name] = value
    return found

"""Copies of a model, with other modules in the place of some, wherever the model holds them."""

from __future__ import annotations

import copy
import types
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rank_search.errors import TaskError

_Module = TypeVar("_Module", bound=nn.Module)

Replaced = Mapping[nn.Module, nn.Module]
"""What stands in the copy for a module of the model."""

_EVERY_MODULES: Final = frozenset(vars(nn.Module()))

_CLOSED: Final = (str, bytes, bytearray, int, float, complex, type, types.ModuleType, types.FunctionType)
"""What holds nothing that a copy would copy."""


def copied(model: _Module, replaced: Replaced | None = None) -> _Module:
    """A deep copy with `replaced[module]` for `module`: in attributes, lists, dictionaries, partials and bound methods.

    What only a function's closure or a weak reference holds is not copied, and stays the original. A tensor that is
    still tied to the graph that it was computed in, which `copy.deepcopy` refuses, is copied as the numbers that it is.
    Whoever has a replaced module's very bias as a parameter has that of the other. What else a replaced module has of
    attributes that code may read (`stride`, or what a user has set) is carried over.

    Raises:
        TaskError: something in the model cannot be copied.
    """
    computed = {id(each): each.detach().clone() for each in tensors_in(model) if not each.is_leaf}
    return _copied(model, replaced or {}, computed)


def shared(model: _Module, replaced: Replaced) -> _Module:
    """The same as `copied`, but with the very tensors of the model."""
    return _copied(model, replaced, {id(each): each for each in tensors_in(model)})


def copied_to(model: _Module, device: torch.device) -> _Module:
    """A deep copy with all tensors of the model on a device; those that are there already are the model's very own.

    Raises:
        TaskError: something in the model cannot be copied.
    """
    held = [each for each in tensors_in(model) if not is_lazy(each)]
    return _copied(model, {}, {id(each): _to(each, device) for each in held}).to(device)


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    if tensor.device == device or tensor.is_meta:
        return tensor
    found = tensor.detach().to(device)
    if isinstance(tensor, nn.Parameter):
        found = nn.Parameter(found, tensor.requires_grad)
    vars(found).update(vars(tensor))
    return found


def _copied(model: _Module, replaced: Replaced, tensors: Mapping[int, Tensor]) -> _Module:
    memo: dict[int, Any] = {**tensors, **{id(module): other for module, other in replaced.items()}}
    biases = [(each._parameters.get("bias"), other._parameters.get("bias")) for each, other in replaced.items()]
    memo |= {id(bias): other for bias, other in biases if bias is not None and other is not None}
    try:
        made = copy.deepcopy(model, memo)
        for module, other in replaced.items():
            for name, value in vars(module).items():
                if name not in _EVERY_MODULES and not hasattr(other, name):
                    setattr(other, name, copy.deepcopy(value, memo))
    except Exception as error:
        raise TaskError(
            f"The model cannot be copied, as every trial does; copy.deepcopy raised {type(error).__name__}: {error}. "
            "Keep what cannot be copied (a lock, an open file, a generator) out of the model."
        ) from error
    return made


def tensors_in(model: nn.Module) -> Iterator[Tensor]:
    """Every tensor that the model holds, in attributes and containers, registered or not."""
    seen: set[int] = set()
    held: list[Any] = [model]
    while held:
        each = held.pop()
        if id(each) in seen or isinstance(each, _CLOSED):
            continue
        seen.add(id(each))
        if isinstance(each, Tensor):
            yield each
        else:
            held += _inside(each)


def _inside(holder: Any) -> list[Any]:
    if isinstance(holder, dict):
        return [*holder.keys(), *holder.values(), *getattr(holder, "__dict__", {}).values()]
    if isinstance(holder, list | tuple | set | frozenset | deque):
        return [*holder, *getattr(holder, "__dict__", {}).values()]
    if isinstance(holder, types.MethodType):
        return [holder.__self__]
    own = [holder.func, holder.args, holder.keywords] if isinstance(holder, partial) else []
    slots = [name for kind in type(holder).__mro__ for name in _slots(kind)]
    own += [getattr(holder, name) for name in slots if hasattr(holder, name)]
    return own + list(getattr(holder, "__dict__", {}).values())


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)

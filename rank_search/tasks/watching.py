"""What a model's forward is given while a task measures it, by position, however the task calls it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from rank_search.errors import ExportError

Inputs = tuple[Tensor, ...]
Random = list[Tensor]
"""The states of torch's global generators."""


@final
@dataclass(frozen=True)
class Seen:
    """What a forward was given.

    Attributes:
        shapes: of its inputs, each set of shapes once.
        draws: whether it draws random numbers.
    """

    shapes: frozenset[tuple[tuple[int, ...], ...]] = frozenset()
    draws: bool = False


@final
@dataclass
class Watch:
    """Collects it; `then` is told the inputs, the generators as they were before, and the outputs of each forward."""

    model: nn.Module
    then: Callable[[Inputs, Random, Any], None] | None = None
    seen: Seen = field(default_factory=Seen)
    _open: list[tuple[Inputs, Random]] = field(default_factory=list)

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Keep the inputs, as a forward may change them."""
        if self.then is None:
            self._open.append((_tensors_of(args, kwargs, self.model), random_states()))
            return
        inputs = by_position(self.model, args, kwargs)
        self._open.append((tuple(each.clone() for each in inputs), random_states()))

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], outputs: Any) -> None:
        """Note their shapes, and whether a generator has moved."""
        inputs, states = self._open.pop()
        now = random_states()
        moved = not all(torch.equal(one, other) for one, other in zip(states, now, strict=True))
        shapes = self.seen.shapes | {tuple(tuple(each.shape) for each in inputs)}
        self.seen = Seen(shapes, self.seen.draws or moved)
        if self.then:
            self.then(inputs, states, outputs)
            set_random_states(now)


@contextmanager
def watched(model: nn.Module, then: Callable[[Inputs, Random, Any], None] | None = None) -> Iterator[Watch]:
    """Watch every forward of the model inside."""
    watch = Watch(model, then)
    hooks = [
        model.register_forward_pre_hook(watch.before, with_kwargs=True),
        model.register_forward_hook(watch.after, with_kwargs=True),
    ]
    try:
        yield watch
    finally:
        for hook in hooks:
            hook.remove()


def by_position(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Inputs:
    """The inputs of a call in the order of forward's parameters; those that are None are left out.

    Raises:
        ExportError: one is no tensor.
    """
    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    given: list[tuple[str, Any]] = []
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            given += [(name, each) for each in value]
        elif kind is inspect.Parameter.VAR_KEYWORD:
            given += value.items()
        else:
            given.append((name, value))
    for name, value in given:
        if not isinstance(value, Tensor) and value is not None:
            raise ExportError(
                f"evaluate() calls the model with a {type(value).__name__} as {name}; inputs must be tensors. "
                "Give such values to the model when it is made."
            )
    return tuple(value for _, value in given if value is not None)


def _tensors_of(args: tuple[Any, ...], kwargs: Mapping[str, Any], model: nn.Module) -> Inputs:
    """The inputs by position, where all are tensors; otherwise none."""
    try:
        return by_position(model, args, kwargs)
    except (ExportError, TypeError, ValueError):
        return ()


def random_states() -> Random:
    """The states of torch's global generators on all devices."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(each) for each in range(torch.cuda.device_count()))]


def set_random_states(states: Random) -> None:
    """Put them back."""
    torch.set_rng_state(states[0])
    for device, state in enumerate(states[1:]):
        torch.cuda.set_rng_state(state, device)

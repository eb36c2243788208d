"""What a model's forward is given while a task measures it, by name, however the task calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from rank_search.basics import named_leaves
from rank_search.layers import Call, bound, with_tensors

Given = Mapping[str, Any]
"""What each parameter of a forward was given."""
Random = list[Tensor]
"""The states of torch's global generators."""

PLAIN: Final = (bool, int, float, str, type(None))
"""Of a value that a graph can hold."""


@final
@dataclass(frozen=True)
class Seen:
    """What a forward was given.

    Attributes:
        shapes: of its tensors, by name; each set of shapes once.
        draws: whether it draws random numbers.
        values: what else its parameters were given, defaults among it; each value of each once.
    """

    shapes: frozenset[tuple[tuple[str, tuple[int, ...]], ...]] = frozenset()
    draws: bool = False
    values: frozenset[tuple[str, Any]] = frozenset()


@final
@dataclass
class Watch:
    """Collects it; `then` is told the inputs, the generators as they were before, and the outputs of each forward."""

    model: nn.Module
    then: Callable[[Given, Random, Any], None] | None = None
    seen: Seen = field(default_factory=Seen)
    _open: list[tuple[Given, Random]] = field(default_factory=list)

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Keep the inputs, as a forward may change them."""
        given = _given(self.model, Call(args, kwargs))
        self._open.append((given if self.then is None else with_tensors(given, Tensor.clone), random_states()))

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], outputs: Any) -> None:
        """Note their shapes, and whether a generator has moved."""
        given, states = self._open.pop()
        now = random_states()
        moved = not all(torch.equal(one, other) for one, other in zip(states, now, strict=True))
        shapes = [(name, tuple(each.shape)) for name, each in leaves_of(given).items() if isinstance(each, Tensor)]
        values = frozenset((name, each) for name, each in given.items() if isinstance(each, PLAIN))
        self.seen = Seen(self.seen.shapes | {tuple(shapes)}, self.seen.draws or moved, self.seen.values | values)
        if self.then:
            self.then(given, states, outputs)
            set_random_states(now)


@contextmanager
def watched(model: nn.Module, then: Callable[[Given, Random, Any], None] | None = None) -> Iterator[Watch]:
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


def leaves_of(given: Given) -> dict[str, Any]:
    """What is in the containers, by the names on the way to it."""
    return dict(named_leaves(given))


def _given(model: nn.Module, call: Call) -> Given:
    """Nothing where forward itself is going to refuse it, or does not say what it takes."""
    try:
        return bound(model, call)
    except (TypeError, ValueError):
        return {}


def random_states() -> Random:
    """The states of torch's global generators on all devices."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(each) for each in range(torch.cuda.device_count()))]


def set_random_states(states: Random) -> None:
    """Put them back."""
    torch.set_rng_state(states[0])
    for device, state in enumerate(states[1:]):
        torch.cuda.set_rng_state(state, device)

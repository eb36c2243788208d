"""A model that is only looked at: it runs, and afterwards it is as it was."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards all modes are as they were, and all buffers (see `buffers_kept`)."""
    with evaluation_mode(model), buffers_kept(model):
        yield


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards every module is in the mode in which it was."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


@contextmanager
def buffers_kept(model: nn.Module, but: Collection[nn.Module] = ()) -> Iterator[None]:
    """Whatever a forward does to buffers inside, they are afterwards as they were: the same tensors, the same numbers.

    A buffer outside of the state dict that a forward has made anew stays: it is a cache, and a plain attribute may say
    what is in it.

    Args:
        but: modules that may change their own.
    """
    own = [(module, name, each) for module in model.modules() if module not in but for name, each in _buffers(module)]
    kept = [_Buffer(module, name, each, each.detach().clone()) for module, name, each in own]
    try:
        yield
    finally:
        for buffer in kept:
            buffer.put_back()


class _Buffer(NamedTuple):
    """A buffer, and its numbers as they were."""

    module: nn.Module
    name: str
    tensor: Tensor
    before: Tensor

    @torch.no_grad()
    def put_back(self) -> None:
        if dict(self.module._buffers.items()).get(self.name) is not self.tensor and self._is_state():
            self.module._buffers[self.name] = self.tensor
        if not torch.equal(self.tensor, self.before):
            self.tensor.copy_(self.before)

    def _is_state(self) -> bool:
        return self.name not in self.module._non_persistent_buffers_set


def _buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Those that hold numbers: not what a lazy module has not set yet, and what is on the meta device."""
    return [(name, each) for name, each in module._buffers.items() if each is not None and _holds_numbers(each)]


def _holds_numbers(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not (tensor.is_meta or is_lazy(tensor))

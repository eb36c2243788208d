"""The precision that forwards are computed in while a model is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

Precision = Literal["float32", "bfloat16"]

_AUTOCAST: Final = {"bfloat16": torch.bfloat16}


@contextmanager
def forwards_in(precision: Precision, *models: nn.Module) -> Iterator[None]:
    """Meanwhile each call of the models is computed in a precision, as PyTorch's autocast has it.

    Parameters stay as they are, and so do gradients, which are of the parameters' own type. Outputs are float32 again
    once the model has been left, so that a loss, its sums above all, is not a 16-bit one. Outputs stand in tensors,
    tuples, lists, dictionaries, or what is registered with PyTorch's pytree (such as the outputs of transformers).
    float32 changes nothing.
    """
    dtype = _AUTOCAST.get(precision)
    with ExitStack() as hooks:
        for model in models if dtype is not None else ():
            casting = _Casting(dtype, _device_of(model))
            hooks.callback(casting.close)
            hooks.enter_context(_removed(model.register_forward_pre_hook(casting.enter)))
            hooks.enter_context(_removed(model.register_forward_hook(casting.leave, always_call=True)))
        yield


class _Casting:
    """Autocast around one model's forwards; they may be within each other, as of a model that calls itself."""

    def __init__(self, dtype: torch.dtype | None, device: str) -> None:
        self._dtype, self._device = dtype, device
        self._open: list[torch.autocast] = []

    def enter(self, module: nn.Module, inputs: Any) -> None:
        context = torch.autocast(self._device, dtype=self._dtype)
        context.__enter__()  # type: ignore[no-untyped-call]
        self._open.append(context)

    def leave(self, module: nn.Module, inputs: Any, outputs: Any) -> Any:
        self._open.pop().__exit__(None, None, None)
        return pytree.tree_map(self._widened, outputs)

    def close(self) -> None:
        """Leave what an interrupt, of which no hook is told, has left open."""
        while self._open:
            self._open.pop().__exit__(None, None, None)

    def _widened(self, value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) and value.dtype == self._dtype else value


@contextmanager
def _removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _device_of(model: nn.Module) -> str:
    return next((each.device.type for each in model.parameters()), "cpu")

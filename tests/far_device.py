"""A second device, made of the CPU: tensors say that they are elsewhere, and do not mix with those of the CPU.

PyTorch's `lazy` device has no backend here, but its gradients are computed like the CPU's, so it lends its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Final, final
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

FAR: Final = torch.device("lazy:0")

_TYPE: Final = FAR.type
_aten: Final = torch.ops.aten
_BETWEEN_DEVICES: Final = {_aten._to_copy.default, _aten.copy_.default}
_INDEXED: Final = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default}
"""Operations that take tensors of two devices on a GPU, too; the latter as their second argument, the places."""


@final
class FarTensor(Tensor):
    """A tensor on the second device."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> FarTensor:
        layout = {"strides": near.stride(), "storage_offset": near.storage_offset(), "dtype": near.dtype}
        made = Tensor._make_wrapper_subclass(cls, near.size(), **layout, device=FAR, requires_grad=False)
        made.near = near
        return made

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.near.untyped_storage()

    def data_ptr(self) -> int:
        return self.near.data_ptr()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carried_out(operation, args, kwargs or {})


@final
class _FarDevice(TorchDispatchMode):
    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carried_out(operation, args, kwargs or {})


@final
class _MadeThere(TorchFunctionMode):
    """What PyTorch makes of numbers without asking a mode for operations."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (torch.tensor, torch.as_tensor) and kwargs.get("device") == FAR:
            return function(*args, **{**kwargs, "device": "cpu"}).to(FAR)
        return function(*args, **kwargs)


@contextmanager
def far_device() -> Iterator[None]:
    """Meanwhile the device `FAR` is there."""
    autocast = torch.autocast

    def known(kind: str, **how: Any) -> Any:
        return nullcontext() if kind == _TYPE else autocast(kind, **how)  # which has none

    with patch("torch.autocast", known), _MadeThere(), _FarDevice():
        yield


def _carried_out(operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    together = (args[:1], args[2:]) if operation in _INDEXED else (args, kwargs)
    tensors = [each for each in pytree.tree_leaves(together) if isinstance(each, Tensor)]
    far = [each for each in tensors if isinstance(each, FarTensor)]
    strangers = [each for each in tensors if not isinstance(each, FarTensor) and each.dim()]
    if far and strangers and operation not in _BETWEEN_DEVICES:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {operation} has {FAR} and {strangers[0].device}"
        )
    found = operation(*pytree.tree_map(_near, args), **pytree.tree_map(_near, kwargs))
    if operation is _aten.copy_.default:
        return args[0]
    wanted = kwargs.get("device")
    if not (far if wanted is None else torch.device(wanted).type == _TYPE):
        return found
    return pytree.tree_map(lambda each: _far(each, args) if isinstance(each, Tensor) else each, found)


def _far(found: Tensor, args: tuple[Any, ...]) -> Tensor:
    """The very argument, where an operation has changed it in place."""
    for each in pytree.tree_leaves(args):
        if isinstance(each, FarTensor) and each.near is found:
            return each
    return FarTensor(found)


def _near(value: Any) -> Any:
    if isinstance(value, FarTensor):
        return value.near
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == _TYPE else value

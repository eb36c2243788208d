"""A tensor that is not computed before an operation needs its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_GETTERS: Final = ("device", "dtype", "is_cuda", "is_meta", "is_sparse", "layout", "ndim", "requires_grad", "shape")
_ASKED: Final = frozenset(getattr(Tensor, name).__get__ for name in _GETTERS) | {
    Tensor.dim,
    Tensor.is_complex,
    Tensor.is_floating_point,
    Tensor.numel,
    Tensor.size,
}
"""What is known without the numbers."""


@final
class MadeWhenUsed(Tensor):
    """Stands for what `make` returns: asking its shape, dtype or device computes nothing, all else makes it first."""

    _make: Callable[[], Tensor]

    @classmethod
    def of(cls, make: Callable[[], Tensor], shape: Sequence[int], like: Tensor) -> MadeWhenUsed:
        """A stand-in with the dtype and the device of another tensor, and with a gradient if that has one."""
        made: MadeWhenUsed = Tensor._make_wrapper_subclass(
            cls, tuple(shape), dtype=like.dtype, device=like.device, requires_grad=like.requires_grad
        )
        made._make = make
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _ASKED:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        args, kwargs = pytree.tree_map_only(MadeWhenUsed, lambda each: each._make(), (args, kwargs or {}))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = pytree.tree_map_only(MadeWhenUsed, lambda each: each._make(), (args, kwargs or {}))
        return func(*args, **kwargs)

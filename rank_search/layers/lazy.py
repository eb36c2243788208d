"""The weight of a factorization, for models that read a layer's weight themselves: worked out only if it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_ABOUT: Final = frozenset(
    {
        *(getattr(Tensor, name).__get__ for name in ("dtype", "device", "shape", "ndim", "layout", "requires_grad")),
        *(getattr(Tensor, name).__get__ for name in ("is_cuda", "is_cpu", "is_meta", "is_nested", "is_sparse")),
        *(getattr(Tensor, name).__get__ for name in ("is_quantized", "is_mkldnn", "is_mps", "is_xpu", "itemsize")),
        *(Tensor.size, Tensor.dim, Tensor.ndimension, Tensor.numel, Tensor.nelement, Tensor.element_size),
        *(Tensor.is_floating_point, Tensor.is_complex, Tensor.get_device, Tensor.__len__),
        *(torch.is_floating_point, torch.is_complex, torch.numel),
    }
)
"""Questions that are answered without the numbers."""


class LazyWeight(Tensor):
    """Stands for a tensor of known shape, type and device; any operation on it is one on the tensor itself.

    So a model that only asks for `layer.weight.dtype`, as many do, multiplies nothing for it. PyTorch's fused
    operations, which would take a weight as it lies in memory, leave alone what is not a plain tensor.
    """

    _made: Callable[[], Tensor]

    @staticmethod
    def of(made: Callable[[], Tensor], shape: Sequence[int], like: Tensor) -> LazyWeight:
        """What `made` gives, in the type and on the device of `like`."""
        found = Tensor._make_wrapper_subclass(
            LazyWeight, tuple(shape), dtype=like.dtype, device=like.device, requires_grad=like.requires_grad
        )
        found._made = made
        return found

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if func in _ABOUT:
                return func(*args, **(kwargs or {}))
        made = pytree.tree_map_only(LazyWeight, lambda each: each._made(), (tuple(args), dict(kwargs or {})))
        return func(*made[0], **made[1])

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Below `__torch_function__`, for what has been called around it."""
        made = pytree.tree_map_only(LazyWeight, lambda each: each._made(), (tuple(args), dict(kwargs or {})))
        return func(*made[0], **made[1])

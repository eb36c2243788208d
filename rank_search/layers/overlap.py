"""Where tensors lie in memory, which tells whether two of them are the same numbers."""

from __future__ import annotations

from torch import Tensor

Place = tuple[int, int, int]
"""A storage, and where in it a tensor begins and ends, in bytes."""


def place_of(tensor: Tensor) -> list[Place]:
    """Where a tensor lies; nowhere if it is empty or has no storage of its own."""
    try:
        storage = tensor.untyped_storage()._cdata
        reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        begin = tensor.storage_offset() * tensor.element_size()
    except (NotImplementedError, RuntimeError):
        return []
    return [(storage, int(begin), int(begin + (reach + 1) * tensor.element_size()))] if tensor.numel() else []


def overlap(one: Place, other: Place) -> bool:
    """Whether two tensors may have a number in common."""
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]

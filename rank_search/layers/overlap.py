"""Where tensors lie in memory, which tells whether two of them are the same numbers."""

from __future__ import annotations

from torch import Tensor

Place = tuple[int, int, int, int, int]
"""A storage, and where in it a tensor begins and ends, in bytes; if it lies there in runs that are equally far apart,
the length of a run, and from the beginning of one to that of the next, else zeros."""


def place_of(tensor: Tensor) -> list[Place]:
    """Where a tensor lies; nowhere if it is empty or has no storage of its own."""
    try:
        storage = tensor.untyped_storage()._cdata
        reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        begin = tensor.storage_offset() * tensor.element_size()
    except (NotImplementedError, RuntimeError):
        return []
    if not tensor.numel():
        return []
    return [(storage, int(begin), int(begin + (reach + 1) * tensor.element_size()), *_runs(tensor))]


def _runs(tensor: Tensor) -> tuple[int, int]:
    """Zeros if it lies in one run, or in no such ones."""
    apart = sorted((s, n) for n, s in zip(tensor.shape, tensor.stride(), strict=True) if n > 1 and s > 0)
    run = 1
    while apart and apart[0][0] == run:
        run *= apart.pop(0)[1]
    periods = [stride for stride, _ in apart]
    if len(periods) != 1 or run > periods[0]:
        return 0, 0
    return run * tensor.element_size(), periods[0] * tensor.element_size()


def overlap(one: Place, other: Place) -> bool:
    """Whether two tensors may have a number in common.

    >>> import torch
    >>> whole = torch.zeros(4, 6)
    >>> (left,), (right,), (row,) = (place_of(each) for each in (whole[:, :3], whole[:, 3:], whole[1]))
    >>> overlap(left, right), overlap(left, row), overlap(right, row)
    (False, True, True)
    """
    if one[0] != other[0] or one[1] >= other[2] or other[1] >= one[2]:
        return False
    period = one[4] if one[4] == other[4] else 0
    if not period:
        return True
    apart = (other[1] - one[1]) % period
    return apart < one[3] or apart + other[3] > period

"""What the operations of common layers give on the meta device.

PyTorch answers there in Python, and imports its compiler to do so: over two seconds of a process that only counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any, Final

import torch
from torch import Tensor
from torch._ops import OpOverload

Shape = Sequence[int]


def given_on_meta(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The tensor that an operation gives on the meta device; None is for PyTorch to answer.

    That is all that is not listed here, and all that does not fit: PyTorch says what is wrong with it.
    """
    rule = _RULES.get(str(func))
    tensors = [each for each in args if isinstance(each, Tensor)]
    if rule is None or not _is_plain(tensors) or not kwargs.keys() <= {"alpha", "beta"}:
        return None
    shape = rule(*(each.shape if isinstance(each, Tensor) else each for each in args))
    return None if shape is None else tensors[0].new_empty(shape)


def _is_plain(tensors: Sequence[Tensor]) -> bool:
    """Strided, on the meta device, of one type."""
    return (
        all(each.is_meta and each.layout is torch.strided and type(each) in _PLAIN for each in tensors)
        and len({each.dtype for each in tensors}) == 1
    )


_PLAIN: Final = (Tensor, torch.nn.Parameter)


def _mm(a: Shape, b: Shape) -> Shape | None:
    return (a[0], b[1]) if len(a) == len(b) == 2 and a[1] == b[0] else None


def _bmm(a: Shape, b: Shape) -> Shape | None:
    fits = len(a) == len(b) == 3 and a[0] == b[0] and a[2] == b[1]
    return (a[0], a[1], b[2]) if fits else None


def _mv(a: Shape, b: Shape) -> Shape | None:
    return a[:1] if len(a) == 2 and len(b) == 1 and a[1] == b[0] else None


def _dot(a: Shape, b: Shape) -> Shape | None:
    return () if len(a) == 1 and list(a) == list(b) else None


def _with(product: Callable[[Shape, Shape], Shape | None]) -> Callable[..., Shape | None]:
    """A product added to something that fits it."""

    def shape(added: Shape, a: Shape, b: Shape) -> Shape | None:
        found = product(a, b)
        fits = found is not None and len(added) <= len(found)
        return found if fits and all(one in (1, size) for one, size in _aligned(added, found)) else None

    return shape


def _aligned(added: Shape, found: Shape | None) -> list[tuple[int, int]]:
    return list(zip(reversed(added), reversed(found or ()), strict=False))


def _convolution(x: Shape, weight: Shape, bias: Shape | None, *given: Any) -> Shape | None:
    """`given` as by `aten.convolution`: stride, padding, dilation, transposed, output padding, groups."""
    stride, padding, dilation, transposed, added, groups = given
    inputs, outputs = (weight[0], weight[1] * groups) if transposed else (weight[1] * groups, weight[0])
    if len(x) != len(weight) or x[1] != inputs or outputs % groups or (bias is not None and list(bias) != [outputs]):
        return None
    options = zip(*(_each(given, len(x) - 2) for given in (stride, padding, dilation, added)), strict=True)
    side = _transposed_side if transposed else _side
    sides = [side(size, kernel, *each) for size, kernel, each in zip(x[2:], weight[2:], options, strict=True)]
    return (x[0], outputs, *sides) if min(sides, default=1) > 0 else None


def _padded(x: Shape, padding: Shape) -> Shape | None:
    """Rows and columns; a reflection is shorter than what is reflected, a repetition may as well be."""
    sizes, (left, right, top, bottom) = list(x), padding
    if len(x) < 3 or max(top, bottom) >= x[-2] or max(left, right) >= x[-1] or min(padding) < 0:
        return None
    return (*sizes[:-2], sizes[-2] + top + bottom, sizes[-1] + left + right)


def _side(size: int, kernel: int, stride: int, padding: int, dilation: int, _: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _transposed_side(size: int, kernel: int, stride: int, padding: int, dilation: int, added: int) -> int:
    return (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + added + 1


def _each(given: Shape, dimensions: int) -> Sequence[int]:
    return list(repeat(given[0], dimensions)) if len(given) == 1 else given


_RULES: Final[Mapping[str, Callable[..., Shape | None]]] = {
    "aten.mm.default": _mm,
    "aten.bmm.default": _bmm,
    "aten.mv.default": _mv,
    "aten.dot.default": _dot,
    "aten.addmm.default": _with(_mm),
    "aten.baddbmm.default": _with(_bmm),
    "aten.addmv.default": _with(_mv),
    "aten.convolution.default": _convolution,
    "aten.reflection_pad2d.default": _padded,
    "aten.replication_pad2d.default": _padded,
}

"""Watches a forward, and follows what is known of the moments of each number that it computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rank_search.sources.known_moments import KnownMoments

Rule = Callable[..., KnownMoments | None]
"""Given a function of torch and its arguments, known moments in place of tensors: those of its result, if known."""


class MomentMode(TorchFunctionMode):
    """Follows moments through the functions that torch is asked for inside, by the tensors that they return.

    What is known of a tensor holds until it is changed in place by anything that has no rule.
    """

    def __init__(self) -> None:
        super().__init__()
        self._of: dict[int, tuple[Tensor, int, KnownMoments]] = {}

    def known(self, tensor: Tensor) -> KnownMoments | None:
        """The moments of a tensor's numbers, if they are known."""
        found = self._of.get(id(tensor))
        return None if found is None or found[1] != tensor._version else found[2]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        moments = self._followed(func, args, named)
        result = func(*args, **named)
        if moments is not None and isinstance(result, Tensor) and moments.mean.shape == result.shape:
            self._of[id(result)] = (result, result._version, moments)
        return result

    def _followed(self, func: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> KnownMoments | None:
        name = _name(func)
        if name == "batch_norm":
            return _behind_norm(*args, **named)
        rule = _RULES.get(name)
        if rule is None:
            return None
        given = [self._put_in(each) for each in args]
        if not any(isinstance(each, KnownMoments) for each in (*given, *(given[0] if _is_list(given) else ()))):
            return None
        try:
            return rule(func, *given, **{key: self._put_in(each) for key, each in named.items()})
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):  # called in a way that has no rule
            return None

    def _put_in(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.known(value) or value
        return [self._put_in(each) for each in value] if isinstance(value, list) else value


def _name(func: Any) -> str:
    """Of a function, a method or an operator, which is called "relu.default"."""
    return str(getattr(func, "__name__", "")).partition(".")[0]


def _is_list(given: list[Any]) -> bool:
    return bool(given) and isinstance(given[0], list)


def _behind_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> KnownMoments | None:
    """What a batch norm gives where its inputs have the statistics that it has stored: N(β, γ²·v/(v + ε))."""
    if training or running_var is None:
        return None
    scale = torch.ones_like(running_var) if weight is None else weight
    shift = torch.zeros_like(running_var) if bias is None else bias
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    variance = scale.double().square() * running_var.double() / (running_var.double() + eps)
    return KnownMoments(shift.double().view(shape).expand(x.shape), variance.view(shape).expand(x.shape))


def _clip(func: Any, x: KnownMoments, *bounds: Any, **named: Any) -> KnownMoments | None:
    """Of hardtanh and clamp, whose bounds have several names."""
    low, high = (*bounds[:2], None, None)[:2]
    low = next((named[each] for each in ("min_val", "min") if named.get(each) is not None), low)
    high = next((named[each] for each in ("max_val", "max") if named.get(each) is not None), high)
    if _name(func).startswith("hardtanh"):
        low, high = (-1.0 if low is None else low), (1.0 if high is None else high)
    return x.clipped(-math.inf if low is None else float(low), math.inf if high is None else float(high))


def _relu(func: Any, x: KnownMoments, *_: Any, **__: Any) -> KnownMoments:
    return x.clipped(0.0, 6.0 if _name(func).startswith("relu6") else math.inf)


def _sum(func: Any, one: Any, other: Any, *, alpha: float = 1) -> KnownMoments | None:
    if isinstance(one, KnownMoments) and isinstance(other, KnownMoments):
        return one.times(1 + alpha) if one is other else one.plus(other.times(alpha))
    if isinstance(one, KnownMoments):
        return one.shifted(alpha * _number(other))
    return cast(KnownMoments, other).times(alpha).shifted(_number(one))


def _difference(func: Any, one: Any, other: Any, *, alpha: float = 1) -> KnownMoments | None:
    return _sum(func, one, other, alpha=-alpha)


def _taken_from(func: Any, one: Any, other: Any) -> KnownMoments | None:
    return _difference(func, other, one)


def _product(func: Any, one: Any, other: Any) -> KnownMoments | None:
    known, factor = (one, other) if isinstance(one, KnownMoments) else (other, one)
    return cast(KnownMoments, known).times(_number(factor))


def _quotient(func: Any, one: KnownMoments, other: Any) -> KnownMoments | None:
    return one.times(1 / _number(other))


def _number(value: Any) -> float:
    if isinstance(value, int | float):
        return float(value)
    raise TypeError


def _same(func: Any, x: KnownMoments, *_: Any, **__: Any) -> KnownMoments:
    return x


def _dropout(func: Any, x: KnownMoments, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return None if training and p else x


def _arranged(func: Any, x: KnownMoments, *args: Any, **named: Any) -> KnownMoments:
    """Numbers are given other places, and nothing else happens to them."""
    mean, variance = (func(each, *args, **named) for each in (x.mean, x.variance))
    return KnownMoments(mean, variance, x.least, x.most)


def _joined(func: Any, parts: list[KnownMoments], *args: Any, **named: Any) -> KnownMoments:
    mean, variance = (func(each, *args, **named) for each in ([p.mean for p in parts], [p.variance for p in parts]))
    return KnownMoments(mean, variance, min(each.least for each in parts), max(each.most for each in parts))


def _padded(
    func: Any, x: KnownMoments, pad: Any, mode: str = "constant", value: float | None = None
) -> KnownMoments | None:
    added = float(value or 0.0) if mode == "constant" else 0.0
    mean = F.pad(x.mean, pad, mode, added if mode == "constant" else None)
    bounds = (min(x.least, added), max(x.most, added)) if mode == "constant" else (x.least, x.most)
    return KnownMoments(mean, F.pad(x.variance, pad, mode), *bounds)


def _averaged(func: Any, x: KnownMoments, *args: Any, **named: Any) -> KnownMoments | None:
    """Means over so many numbers each."""
    mean, variance = (func(each, *args, **named) for each in (x.mean, x.variance))
    return KnownMoments(mean, variance * (mean.numel() / x.mean.numel()), x.least, x.most)


def _pooled(
    func: Any,
    x: KnownMoments,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> KnownMoments | None:
    """Windows that lie within the numbers."""
    dimensions = int(_name(func)[-2])
    if any(_tuple(padding, dimensions)) or ceil_mode or divisor_override:
        return None
    mean, variance = (func(each, kernel_size, stride or None) for each in (x.mean, x.variance))
    return KnownMoments(mean, variance / math.prod(_tuple(kernel_size, dimensions)), x.least, x.most)


def _pooled_to(func: Any, x: KnownMoments, output_size: Any) -> KnownMoments | None:
    """Windows of one size that do not overlap."""
    mean = func(x.mean, output_size)
    spaces = zip(x.mean.shape[-int(_name(func)[-2]) :], mean.shape[-int(_name(func)[-2]) :], strict=True)
    return None if any(before % after for before, after in spaces) else _averaged(func, x, output_size)


def _tuple(value: Any, length: int) -> tuple[int, ...]:
    return (value,) * length if isinstance(value, int) else tuple(value) * (length if len(value) == 1 else 1)


_RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(("relu", "relu_", "relu6"), _relu),
    **dict.fromkeys(("hardtanh", "hardtanh_", "clamp", "clamp_", "clip", "clip_"), _clip),
    **dict.fromkeys(("add", "add_", "__add__", "__iadd__", "__radd__"), _sum),
    **dict.fromkeys(("sub", "sub_", "subtract"), _difference),
    **dict.fromkeys(("mul", "mul_", "multiply"), _product),
    **dict.fromkeys(("div", "div_", "divide", "true_divide"), _quotient),
    **dict.fromkeys(("contiguous", "clone", "detach"), _same),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d"), _dropout),
    **dict.fromkeys(("flatten", "reshape", "view", "unflatten", "unsqueeze", "squeeze", "permute"), _arranged),
    **dict.fromkeys(("transpose", "movedim", "flip", "roll", "narrow", "__getitem__", "expand"), _arranged),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack"), _joined),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), _pooled),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), _pooled_to),
    **dict.fromkeys(("__rsub__", "rsub"), _taken_from),
    "mean": _averaged,
    "pad": _padded,
}
"""By the name of the function, of its method, or of its operator."""

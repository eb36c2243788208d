"""Convolutions: the weight is out × in × kernel, and a position's inputs are the patch that the kernel lies on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Final, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rank_search.layers import Layer, LayerKind

_OPERATIONS: Final[dict[int, Callable[..., Tensor]]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class ConvolutionKind(LayerKind):
    """Convolutions of some number of dimensions, without groups."""

    def refusal(self, module: nn.Module) -> str:
        groups, channels = cast(_ConvNd, module).groups, cast(_ConvNd, module).in_channels
        if groups > 1 and groups == channels:
            return "depthwise convolution: each channel's kernel is too small to factorize"
        return f"grouped convolution ({groups} groups) is not supported" if groups > 1 else ""

    def geometry(self, module: nn.Module) -> Layer:
        conv = cast(_ConvNd, module)
        return Layer(
            "",
            "",
            tuple(conv.weight.shape),
            conv.bias is not None,
            stride=conv.stride,
            padding=_explicit_padding(conv),
            padding_mode=conv.padding_mode,
            dilation=conv.dilation,
            dtype=conv.weight.dtype,
        )

    def operate(self, layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        convolve = _OPERATIONS[len(layer.kernel)]
        padded = any(chain(*layer.padding))
        if math.prod(weight.shape[2:]) == 1 and not padded:
            # The same numbers; oneDNN (torch 2.13) writes past its memory in the backward of some strided 1×1 kernels.
            strided: tuple[Any, ...] = (..., *(slice(None, None, step) for step in layer.stride))
            return convolve(x[strided], weight, bias, groups=groups)
        if layer.padding_mode == "zeros" and all(before == after for before, after in layer.padding):
            padding = tuple(before for before, _ in layer.padding)
            return convolve(x, weight, bias, layer.stride, padding, layer.dilation, groups)
        return convolve(_padded(layer, x), weight, bias, layer.stride, 0, layer.dilation, groups)

    def mix(self, layer: Layer, x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        dimensions = len(layer.kernel)
        return _OPERATIONS[dimensions](x, matrix[..., *[None] * dimensions], bias)

    def columns(self, layer: Layer, x: Tensor, most: int) -> Tensor:
        dimensions = len(layer.kernel)
        examples = x if x.dim() == dimensions + 2 else x[None]
        sides = zip(examples.shape[2:], layer.stride, strict=True)
        some = examples[: max(1, most // max(1, math.prod(-(-size // step) for size, step in sides)))]
        if not some.numel():
            return x.new_zeros(0, layer.in_features * math.prod(layer.kernel))
        return _patches(layer, _padded(layer, some).contiguous())

    def channels(self, layer: Layer) -> int:
        return -1 - len(layer.kernel)


class Conv1dKind(ConvolutionKind):
    """`nn.Conv1d`."""

    def classes(self) -> tuple[type[nn.Module], ...]:
        return (nn.Conv1d,)


class Conv2dKind(ConvolutionKind):
    """`nn.Conv2d`."""

    def classes(self) -> tuple[type[nn.Module], ...]:
        return (nn.Conv2d,)


class Conv3dKind(ConvolutionKind):
    """`nn.Conv3d`."""

    def classes(self) -> tuple[type[nn.Module], ...]:
        return (nn.Conv3d,)


def _patches(layer: Layer, padded: Tensor) -> Tensor:
    """A row for each position of each example: what the kernel lies on there, in the order in · kernel."""
    dimensions = len(layer.kernel)
    if dimensions == 2:
        return F.unfold(padded, layer.kernel, layer.dilation, stride=layer.stride).transpose(1, 2).flatten(0, 1)
    for place, (size, step, apart) in enumerate(zip(layer.kernel, layer.stride, layer.dilation, strict=True)):
        padded = padded.unfold(2 + place, apart * (size - 1) + 1, step)[..., ::apart]
    return padded.movedim(1, 1 + dimensions).flatten(0, dimensions).flatten(1)  # was: examples, in, positions, kernel


def _padded(layer: Layer, x: Tensor) -> Tensor:
    """What the kernel sees at the borders; `F.pad` begins with the last dimension."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(x, list(chain(*reversed(layer.padding))), mode=mode)


def _explicit_padding(module: _ConvNd) -> tuple[tuple[int, int], ...]:
    padding: Any = module.padding
    if padding == "valid":
        return ((0, 0),) * len(module.kernel_size)
    if padding == "same":
        spans = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        return tuple((span // 2, span - span // 2) for span in spans)
    return tuple((each, each) for each in cast(Sequence[int], padding))

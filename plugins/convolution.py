"""Convolutions: the weight is out × in × kernel, and a position's inputs are the patch that the kernel lies on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Final, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from rank_search.layers import Layer, LayerKind

_OPERATIONS: Final[dict[int, Callable[..., Tensor]]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: Final[dict[int, Callable[..., Tensor]]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


class ConvolutionKind(LayerKind):
    """Convolutions of some number of dimensions."""

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
            groups=conv.groups,
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
        return _OPERATIONS[dimensions](x, matrix[..., *[None] * dimensions], bias, groups=layer.groups)

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


# ---- transposed ------------------------------------------------------------------------------------------


class TransposedConvolutionKind(ConvolutionKind):
    """Transposed convolutions of some number of dimensions; the weight is stored as in × out/groups × kernel.

    With groups only where each has one input channel: otherwise no view of the weight has the outputs first.

    Symbols: x the inputs, s the stride, d the dilation, p the padding, κ a place in the kernel. The output at position
    t is y[o, t] = Σ_{i, κ} W[o, i, κ]·x[i, q], with t = q·s − p + κ·d: where the kernel is larger than the stride,
    several inputs meet in one output. So a column is what one *output* position is made of: for each input channel and
    each place κ the input at q, or zero where there is none. With the second moment C of these columns the output error
    E‖Wx − W'x‖² = tr((W − W')·C·(W − W')ᵀ) is exact, as it is for a convolution, and of the out × (in·kernel)
    unfolding the best approximation is the best for the outputs. (Seen from the inputs, an (out·kernel) × in matrix is
    multiplied with the channels of each input position; but its products are summed where they meet, and so are their
    errors.)
    """

    def refusal(self, module: nn.Module) -> str:
        conv = cast(_ConvTransposeNd, module)
        if conv.groups in (1, conv.in_channels):
            return ""
        return f"transposed convolution with {conv.groups} groups of several input channels each: not supported"

    def weight(self, module: nn.Module) -> Tensor:
        weight, groups = module.get_parameter("weight"), cast(_ConvTransposeNd, module).groups
        return weight.transpose(0, 1) if groups == 1 else weight.flatten(0, 1)[:, None]

    def geometry(self, module: nn.Module) -> Layer:
        conv = cast(_ConvTransposeNd, module)
        shape = tuple(self.weight(module).shape)
        return replace(super().geometry(module), shape=shape, output_padding=conv.output_padding)

    def operate(self, layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        stored = weight.view(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)  # in × out/groups × kernel
        padding = tuple(before for before, _ in layer.padding)
        transposed = _TRANSPOSED[len(layer.kernel)]
        return transposed(x, stored, bias, layer.stride, padding, layer.output_padding, groups, layer.dilation)

    def columns(self, layer: Layer, x: Tensor, most: int) -> Tensor:
        dimensions = len(layer.kernel)
        examples = x if x.dim() == dimensions + 2 else x[None]
        some = examples[: max(1, most // max(1, _positions(layer, examples)))]
        if not some.numel():
            return x.new_zeros(0, layer.in_features * math.prod(layer.kernel))
        found = _patches(replace(layer, stride=(1,) * dimensions), _spread(layer, some))
        return found.view(len(found), -1, *layer.kernel).flip(*range(2, 2 + dimensions)).flatten(1)


def _positions(layer: Layer, x: Tensor) -> int:
    """Of the outputs of one example."""
    spread = [(size - 1) * step for size, step in zip(x.shape[2:], layer.stride, strict=True)]
    reach = [apart * (size - 1) for apart, size in zip(layer.dilation, layer.kernel, strict=True)]
    sides = zip(spread, reach, layer.padding, layer.output_padding, strict=True)
    return math.prod(inner + outer - sum(padding) + added + 1 for inner, outer, padding, added in sides)


def _spread(layer: Layer, x: Tensor) -> Tensor:
    """The inputs a stride apart, with zeros between and around them, on which the flipped kernel gives the outputs.

    Where the padding is larger than the kernel's reach, what lies at the borders is cut off.
    """
    sizes = [(size - 1) * step + 1 for size, step in zip(x.shape[2:], layer.stride, strict=True)]
    apart = x.new_zeros(*x.shape[:2], *sizes)
    strided: tuple[Any, ...] = (..., *(slice(None, None, step) for step in layer.stride))
    apart[strided] = x
    reach = [distance * (size - 1) for distance, size in zip(layer.dilation, layer.kernel, strict=True)]
    sides = zip(reach, layer.padding, layer.output_padding, strict=True)
    around = [(size - before, size - after + added) for size, (before, after), added in sides]
    return F.pad(apart, list(chain(*reversed(around))))


class ConvTranspose1dKind(TransposedConvolutionKind):
    """`nn.ConvTranspose1d`."""

    def classes(self) -> tuple[type[nn.Module], ...]:
        return (nn.ConvTranspose1d,)


class ConvTranspose2dKind(TransposedConvolutionKind):
    """`nn.ConvTranspose2d`."""

    def classes(self) -> tuple[type[nn.Module], ...]:
        return (nn.ConvTranspose2d,)


class ConvTranspose3dKind(TransposedConvolutionKind):
    """`nn.ConvTranspose3d`."""

    def classes(self) -> tuple[type[nn.Module], ...]:
        return (nn.ConvTranspose3d,)

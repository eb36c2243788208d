"""One layer that can be factorized: its geometry, and its operation with any weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.errors import LayerError

Kind = Literal["conv2d", "linear"]
Pair = tuple[int, int]

Unfolding = Callable[[Tensor], Tensor]
"""A rearrangement of a layer's weight into a matrix."""


@dataclass(frozen=True)
class Layer:
    """The geometry of a `Linear` or an ungrouped `Conv2d`, without its weights.

    Attributes:
        name: dotted name in the model; `aliases` are further names of the same module.
        kind: `"conv2d"` or `"linear"`.
        shape: shape of the dense weight: out × in, for convolutions × kernel height × kernel width.
        bias: whether it adds one.
        stride, dilation: (rows, columns); (1, 1) for linear layers.
        padding: ((top, bottom), (left, right)), in pixels; `"same"` is resolved to these numbers.
        padding_mode: as in `torch.nn.Conv2d`.
        inputs: shape of each input seen in one forward of the task's example (several if called several times).
        dtype: of the weight.
        examples: how many examples the inputs are those of.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    bias: bool = True
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    padding_mode: str = "zeros"
    dilation: Pair = (1, 1)
    inputs: tuple[tuple[int, ...], ...] = ()
    aliases: tuple[str, ...] = ()
    dtype: torch.dtype = torch.float32
    examples: int = field(default=1, repr=False)  # what is kept under a layer's text does not depend on it

    @classmethod
    def of(cls, module: nn.Module, name: str = "", aliases: tuple[str, ...] = ()) -> Layer:
        """Read the geometry off a module.

        Raises:
            LayerError: it is neither a `Linear` nor an ungrouped `Conv2d`.
        """
        if isinstance(module, nn.Linear):
            shape = (module.out_features, module.in_features)
            return cls(name, "linear", shape, module.bias is not None, aliases=aliases, dtype=module.weight.dtype)
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            return cls(
                name,
                "conv2d",
                tuple(module.weight.shape),
                module.bias is not None,
                stride=_pair(module.stride),
                padding=_explicit_padding(module),
                padding_mode=module.padding_mode,
                dilation=_pair(module.dilation),
                aliases=aliases,
                dtype=module.weight.dtype,
            )
        raise LayerError(
            f"Layer {name!r} is {type(module).__name__}; only Linear and ungrouped Conv2d can be factorized. "
            "Exclude it in the study file ([layers] exclude)."
        )

    @property
    def out_features(self) -> int:
        """Number of output channels."""
        return self.shape[0]

    @property
    def in_features(self) -> int:
        """Number of input channels."""
        return self.shape[1]

    @property
    def kernel(self) -> Pair:
        """Kernel (rows, columns); (1, 1) for linear layers."""
        return (self.shape[2], self.shape[3]) if self.kind == "conv2d" else (1, 1)

    def operate(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
        """Apply the layer's operation (its stride, padding and dilation) with another weight.

        The weight may have any channel numbers; for convolutions `groups` = its channels makes it depthwise.
        """
        if self.kind == "linear":
            return F.linear(x, weight, bias)
        (top, bottom), (left, right) = self.padding
        if weight.shape[2:] == (1, 1) and not any((top, bottom, left, right)):
            # The same numbers; oneDNN (torch 2.13) writes past its memory in the backward of some strided 1×1 kernels.
            rows, columns = self.stride
            return F.conv2d(x[:, :, ::rows, ::columns], weight, bias, groups=groups)
        if self.padding_mode == "zeros" and top == bottom and left == right:
            return F.conv2d(x, weight, bias, self.stride, (top, left), self.dilation, groups)
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded = F.pad(x, (left, right, top, bottom), mode=mode)
        return F.conv2d(padded, weight, bias, self.stride, 0, self.dilation, groups)

    def mix(self, x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
        """Mix channels: out × in matrix applied at every position (a 1×1 convolution, or a linear map)."""
        if self.kind == "linear":
            return F.linear(x, matrix, bias)
        return F.conv2d(x, matrix[:, :, None, None], bias)

    def along_rows(self) -> Layer:
        """The same layer acting on rows only: stride, padding and dilation of the columns taken away."""
        return replace(
            self,
            stride=(self.stride[0], 1),
            padding=(self.padding[0], (0, 0)),
            dilation=(self.dilation[0], 1),
        )

    def along_columns(self) -> Layer:
        """The same layer acting on columns only."""
        return replace(
            self,
            stride=(1, self.stride[1]),
            padding=((0, 0), self.padding[1]),
            dilation=(1, self.dilation[1]),
        )


def weight_of(model: nn.Module, layer: str) -> Tensor:
    """The weight of a layer, by its name, without its gradient."""
    return model.get_submodule(layer).get_parameter("weight").detach()


def input_of(inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
    """What a layer was called with, as a hook sees it: its input may be named."""
    found: Tensor = inputs[0] if inputs else named["input"]
    return found


def _pair(value: int | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _explicit_padding(module: nn.Conv2d) -> tuple[Pair, Pair]:
    if module.padding == "valid":
        return (0, 0), (0, 0)
    if module.padding == "same":
        rows, columns = (d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True))
        return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)
    rows, columns = _pair(module.padding)  # type: ignore[arg-type]
    return (rows, rows), (columns, columns)

"""The layers that factorizations are tried on: small, and between them every geometry there is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import torch
from torch import nn

from rank_search.layers import Factorization, Layer

_IMAGE: Final = (9, 8)


def _conv(in_features: int, out_features: int, kernel: int | tuple[int, int], **options: Any) -> Layer:
    module = nn.Conv2d(in_features, out_features, kernel, device="meta", **options)
    return _with_input(module, (2, in_features, *_IMAGE))


def _line(in_features: int, out_features: int, kernel: int, **options: Any) -> Layer:
    module = nn.Conv1d(in_features, out_features, kernel, device="meta", **options)
    return _with_input(module, (2, in_features, _IMAGE[0]))


def _volume(in_features: int, out_features: int, kernel: int | tuple[int, int, int], **options: Any) -> Layer:
    module = nn.Conv3d(in_features, out_features, kernel, device="meta", **options)
    return _with_input(module, (2, in_features, 5, 6, 4))


def _transposed(in_features: int, out_features: int, kernel: int | tuple[int, int], **options: Any) -> Layer:
    module = nn.ConvTranspose2d(in_features, out_features, kernel, device="meta", **options)
    return _with_input(module, (2, in_features, 5, 4))


def _linear(in_features: int, out_features: int, *positions: int, **options: Any) -> Layer:
    module = nn.Linear(in_features, out_features, device="meta", **options)
    return _with_input(module, (*(positions or (5,)), in_features))


def _with_input(module: nn.Module, shape: tuple[int, ...]) -> Layer:
    layer = Layer.of(module, name=str(module))
    exact = " float64" if layer.dtype == torch.float64 else ""
    return replace(layer, name=layer.name + exact, inputs=(shape,))


GEOMETRIES: Final[tuple[Layer, ...]] = (
    _conv(6, 8, 3),
    _conv(6, 8, 3, padding=1),
    _conv(6, 8, 3, padding=1, bias=False),
    _conv(6, 8, 3, padding=1, dtype=torch.float64),
    _conv(8, 6, 3, stride=2, padding=1),
    _conv(4, 6, 3, stride=2),
    _conv(4, 6, 2, stride=3, bias=False),
    _conv(6, 8, 3, padding=2, dilation=2),
    _conv(6, 4, (3, 5), stride=(2, 1), padding=(0, 2)),
    _conv(6, 4, (3, 2), stride=(1, 3), padding=(4, 1), dilation=(3, 2)),
    _conv(4, 6, (1, 3), padding=(0, 1)),
    _conv(4, 6, (3, 1), stride=(1, 2)),
    _conv(6, 8, 3, padding="same"),
    _conv(6, 8, (4, 2), padding="same", bias=False),
    _conv(4, 6, 3, padding=1, padding_mode="reflect"),
    _conv(4, 6, (5, 3), padding=(2, 1), padding_mode="circular", bias=False),
    _conv(4, 6, 3, stride=2, padding=2, padding_mode="replicate"),
    _conv(4, 6, (2, 4), padding="same", dilation=(3, 1), padding_mode="reflect", dtype=torch.float64),
    _conv(2, 20, 3, padding=1),
    _conv(20, 2, 3, padding=1),
    _conv(1, 12, 3),
    _conv(12, 1, 3),
    _conv(1, 1, 3),
    _conv(6, 8, 1),
    _conv(8, 6, 1, stride=2, bias=False),
    _conv(4, 6, 1, padding=1, dtype=torch.float64),
    _linear(12, 7),
    _linear(5, 16, bias=False),
    _linear(6, 6, 2, 3, dtype=torch.float64),
    _linear(6, 1),
)
"""Strides, paddings (with "same" and every mode), dilations, kernels, shapes, bias or none, both precisions."""

FURTHER: Final[tuple[Layer, ...]] = (
    _line(6, 8, 3, padding=1),
    _line(4, 6, 4, stride=2, padding="valid", bias=False, dtype=torch.float64),
    _line(4, 6, 4, padding="same", dilation=2, padding_mode="replicate"),
    _line(6, 8, 1, stride=2),
    _volume(4, 6, 3, padding=1),
    _volume(4, 6, (3, 1, 2), stride=(2, 1, 2), padding=(1, 0, 1), bias=False, dtype=torch.float64),
    _volume(3, 4, (1, 3, 3), padding="same", padding_mode="circular"),
    _volume(4, 6, 1),
    _conv(6, 8, 3, padding=1, groups=2),
    _conv(8, 12, (3, 1), stride=2, groups=4, bias=False, dtype=torch.float64),
    _conv(6, 9, 1, groups=3),
    _conv(6, 6, 3, padding=1, groups=6),
    _conv(4, 8, (5, 3), stride=(2, 1), padding="valid", groups=4, padding_mode="reflect", dtype=torch.float64),
    _line(6, 8, 3, padding=1, groups=2),
    _volume(4, 4, 3, padding=1, groups=4, bias=False),
    _transposed(8, 4, 2, stride=2),
    _transposed(6, 8, (4, 3), stride=(3, 2), padding=(2, 1), output_padding=(1, 0), dilation=(1, 2), bias=False),
    _transposed(4, 6, 1, stride=2, output_padding=1, dtype=torch.float64),
    _transposed(4, 8, 3, stride=2, output_padding=1, groups=4),
    _with_input(nn.ConvTranspose1d(6, 4, 3, stride=2, padding=1, device="meta"), (2, 6, 7)),
    _with_input(nn.ConvTranspose3d(4, 3, 2, stride=2, device="meta"), (1, 4, 3, 2, 3)),
)
"""What only a factorization of `any_geometry` is asked about: other dimensions, groups, transposed convolutions."""


def geometries_for(factorization: type[Factorization]) -> tuple[Layer, ...]:
    """The layers that a factorization is tried on."""
    return (*GEOMETRIES, *FURTHER) if factorization.any_geometry else GEOMETRIES

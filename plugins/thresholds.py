"""Soft thresholds that training learns (Kusupati et al. 2020, arXiv:2002.03231): a number s, and g(s) = 1/(1 + e⁻ˢ).

Decay pulls s from far below zero towards zero, so that the threshold g(s) rises from nothing towards ½, and the
gradient of the loss stops it. There the pull is weight decay in an SGD of long trainings. Here s follows its flow

    ds/dτ = −folds·s − RATE·∂L/∂s,

with τ the part of the training that has passed, from 0 to 1: its length and its optimizer are not in it.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from rank_search.basics import Float
from rank_search.layers import Axis

START: Final = -10 * torch.e**2
"""Of s: after two e-folds it is −10, where the threshold begins to be felt; and in float32 it has a gradient."""

RATE: Final = 1e4
"""Of the gradient over the whole training; the published recipes have 4·10⁴ (CIFAR-10) and 5·10⁵ (ImageNet)."""


_FOLDS: Final = (3.0, 24.0)  # with fewer the threshold stays below 0.03; more change little


def folds_axis() -> Axis:
    """How far decay pulls s, in e-folds over the whole training."""
    return Axis("folds", *_FOLDS, integer=False)


def new_threshold() -> nn.Parameter:
    """s, not yet set; in float32 whatever the layer is in, as a half-precision number would not decay evenly."""
    return nn.Parameter(torch.empty((), dtype=torch.float32))


def soft(x: Float[Tensor, "*shape"], s: Float[Tensor, ""]) -> Float[Tensor, "*shape"]:
    """sign(x)·max(0, |x| − g(s)·max|x|), in float32 or wider.

    >>> soft(torch.tensor([4.0, -3.0, 1.0]), torch.tensor(0.0)).tolist()
    [2.0, -1.0, 0.0]
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    least = s.float().sigmoid() * wide.detach().abs().max()
    return (wide.sign() * (wide.abs() - least).relu()).to(x.dtype)


@torch.no_grad()
def move_(s: nn.Parameter, folds: float, share: float) -> None:
    """A step along the flow, of this share of the training.

    The gradient's pull is at most twice the decay's: s falls no faster than it would rise.
    """
    if not s.requires_grad:
        return
    rise = -s * -torch.expm1(torch.tensor(-folds * share))
    pull = torch.zeros_like(s) if s.grad is None else RATE * share * s.grad
    s.add_(rise - pull.clamp(-2 * rise.abs(), 2 * rise.abs()))

"""Ranks that training learns: after each step the components of factorizations lose norm, and some have none left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Final, final

import torch
from torch import Tensor, nn

from rank_search.basics import Bool, Float
from rank_search.layers import is_same_weight
from rank_search.training.component_axes import ComponentAxis, Slices, component_axes
from rank_search.training.fine_tuning import SparsityPenalty

_COSTS: Final = ("params", "macs")


def joint_norms(slices: Slices, count: int) -> Float[Tensor, " count"]:
    """The norm of each component: of all its slices in all factors together. O(n).

    >>> joint_norms([(torch.tensor([[3.0, 0.0]]), 1), (torch.tensor([[4.0], [1.0]]), 0)], 2).tolist()
    [5.0, 1.0]
    """
    return sum((_squares(factor, mode, count) for factor, mode in slices), torch.zeros(())).sqrt()


def scale_(slices: Slices, scales: Float[Tensor, " count"]) -> None:
    """Every slice times the number of its component, in place. O(n).

    >>> factor = torch.ones(1, 4)
    >>> scale_([(factor, 1)], torch.tensor([0.0, 2.0]))  # two groups
    >>> factor.tolist()
    [[0.0, 2.0, 0.0, 2.0]]
    """
    for factor, mode in slices:
        factor.movedim(mode, -1).mul_(scales.to(factor.dtype).repeat(factor.shape[mode] // len(scales)))


def kept_shares(norms: Float[Tensor, " count"], thresholds: Float[Tensor, ""] | float) -> Float[Tensor, " count"]:
    """What a soft threshold leaves of each: max(0, 1 − threshold/norm). O(count).

    >>> kept_shares(torch.tensor([4.0, 1.0, 0.0]), 2.0).tolist()
    [0.5, 0.0, 0.0]
    """
    return (1 - thresholds / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_min(0)


def kept_shares_of_tails(norms: Float[Tensor, " count"], threshold: float) -> Float[Tensor, " count"]:
    """What is left of each where every tail, from a component to the last, loses the threshold. O(count).

    Symbols: n_c the norms, t_b the norm of the tail from b on, as it is when the smaller tails have lost theirs. From
    the last b to the first: t_b² = n_b² + (s_b₊₁·t_b₊₁)², s_b = max(0, 1 − threshold/t_b); of component c Π_b≤c s_b is
    left. It is the proximal step of threshold·Σ_b t_b: groups that are nested take their steps from the smallest up
    (Jenatton, Mairal, Obozinski, Bach, "Proximal Methods for Hierarchical Sparse Coding", 2011).

    >>> kept_shares_of_tails(torch.tensor([5.0, 0.5]), 1.0).tolist()
    [0.800000011920929, 0.0]
    """
    left, shares = 0.0, []
    for norm in reversed(norms.tolist()):
        tail = math.hypot(norm, left)
        shares.append(max(0.0, 1 - threshold / tail) if tail > 0 else 0.0)
        left = shares[-1] * tail
    return torch.tensor(shares[::-1], dtype=norms.dtype, device=norms.device).cumprod(0)


def balance_(slices: Slices, count: int) -> None:
    """Give all factors the same part of each component, their product as it is: the geometric mean of the norms. O(n).

    Of all ways to share a product between its factors this has the smallest joint norm. A component without a slice in
    some factor stays as it is.

    >>> left, right = torch.tensor([[1.0]]), torch.tensor([[16.0]])
    >>> balance_([(left, 1), (right, 0)], 1)
    >>> left.item(), right.item()
    (4.0, 4.0)
    """
    logarithms = torch.stack([_squares(factor, mode, count).log() / 2 for factor, mode in slices])
    scales = (logarithms.mean(0) - logarithms).exp()
    for one, scale in zip(slices, scales.where(logarithms.isfinite().all(0), 1.0), strict=True):
        scale_([one], scale)


def _squares(factor: Tensor, mode: int, count: int) -> Float[Tensor, " count"]:
    wide = factor.to(torch.promote_types(factor.dtype, torch.float32))
    return wide.movedim(mode, 0).flatten(1).square().sum(1).view(-1, count).sum(0)


@final
class Shrinking:
    """The components of a model, which lose norm from step to step in proportion to what they cost.

    Symbols: c a component, ‖c‖ the joint norm of its slices in the factors, p_c what it costs over what the components
    of the model cost on average, s the strength, η the learning rate. After each step of the optimizer the slices of c
    are multiplied by max(0, 1 − η·s·p_c/‖c‖): the proximal step of s·Σ p_c‖c‖, the group lasso of Yuan & Lin, "Model
    Selection and Estimation in Regression with Grouped Variables" (2006). The step is that of gradient descent, with
    SGD's momentum m over 1 − m, as all steps after a gradient together move a weight by η/(1 − m) of it; with AdamW it
    is decoupled from the adapted gradients, as its weight decay is. Axes whose slices cross in a factor,
    as in the core of a Tucker decomposition, take their steps one after the other. Over balanced factors the sum is a
    multiple of the Schatten-½ quasi-norm: Fan, Ding, Chen, Udell, "Factor Group-Sparse Regularization for Efficient
    Low-Rank Matrix Recovery" (NeurIPS 2019).

    In an ordered training the tails of an axis lose norm, each as much: s·Σ_b p‖tail b‖, b from the first component to
    the last, in the manner of the hierarchical group lasso of Maestro (Horváth et al. 2024, arXiv:2308.14929), where
    each factor has a norm of its own. So the last components are lost first.

    Factors that are not trained, and frames that are kept orthonormal (`framed`), are left alone: there the others
    carry the norm. O(n) a step, n the numbers in the factors.
    """

    def __init__(self, model: nn.Module, penalty: SparsityPenalty, *, framed: bool, of_tails: bool = False) -> None:
        self._kept = kept_shares_of_tails if of_tails else kept_shares
        self._axes = component_axes(model, framed=framed)
        self._weights = [penalty.strength * weight for weight in _weights(self._axes, penalty.costs)]

    @torch.no_grad()
    def shrink_(self, rate: float) -> None:
        """The proximal step of a step of gradient descent at a rate."""
        for axis, weight in zip(self._axes, self._weights, strict=True):
            scale_(axis.slices, self._kept(joint_norms(axis.slices, axis.count), rate * weight))

    @torch.no_grad()
    def alive(self) -> Sequence[Bool[Tensor, " _"]]:
        """Which components of each axis are not zero."""
        return [joint_norms(axis.slices, axis.count) != 0 for axis in self._axes]

    @torch.no_grad()
    def keep_(self, alive: Sequence[Bool[Tensor, " _"]]) -> None:
        """Put the others to zero."""
        for axis, mask in zip(self._axes, alive, strict=True):
            scale_(axis.slices, mask.float())


@torch.no_grad()
def balance_components(model: nn.Module, *, framed: bool) -> None:
    """Share each component evenly between its factors, in every form whose weight stays the same, but for rounding.

    A rank is then lost in the order of the singular values, which one of two factors may carry alone.
    """
    for form, axes in groupby(component_axes(model, framed=framed), lambda axis: axis.form):
        before, weight = [each.clone() for each in form.parameters()], form.dense()
        for axis in axes:
            balance_(axis.slices, axis.count)
        if not is_same_weight(weight, form.dense()):
            for parameter, earlier in zip(form.parameters(), before, strict=True):
                parameter.copy_(earlier)


def _weights(axes: Sequence[ComponentAxis], costs: Sequence[str]) -> Sequence[float]:
    """What a component of each axis costs over what the average one does; the mean over the costs.

    An embedding, which is looked up and has no MACs, is weighed by its parameters.
    """
    own = [axis.cost_of_one() for axis in axes]
    count = sum(axis.count for axis in axes) or 1
    mean = {cost: sum(axis.count * one[cost] for axis, one in zip(axes, own, strict=True)) / count for cost in _COSTS}
    found = []
    for axis, one in zip(axes, own, strict=True):
        judged = ("params",) if axis.form.layer.one_hot else costs
        found.append(sum(one[cost] / mean[cost] for cost in judged if one[cost]) / len(judged))
    return found

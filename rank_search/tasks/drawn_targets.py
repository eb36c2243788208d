"""Losses on targets drawn from a model's own predictions: their gradients' second moment is the Fisher information."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.basics import Float

_IGNORED: Final = -100
"""Stands in targets that do not count; PyTorch's cross-entropy leaves them out."""


def drawn_cross_entropy(logits: Float[Tensor, "... classes"]) -> Float[Tensor, ""]:
    """Mean cross-entropy with targets that have the mean and the covariance of classes drawn from p = softmax(logits).

    The gradient at one of n positions is g/n with g = √p∘ξ − p·(√p·ξ), ξ random signs by torch's global generator: its
    second moment is (diag(p) − p·pᵀ)/n², as that of p − e with a drawn class e, one-hot. But where a model is nearly
    certain, hardly any draw says anything, and all signs do. The targets p − g sum to 1, and may be negative. In
    float32 or wider. O(n·classes).

    >>> round(float(drawn_cross_entropy(torch.zeros(3, 4))), 4)  # ln 4
    1.3863
    """
    flat = logits.reshape(-1, logits.shape[-1])
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    p = flat.detach().softmax(-1)
    signed = p.sqrt() * torch.empty_like(p).bernoulli_(0.5).mul_(2).sub_(1)
    gradients = signed - p * signed.sum(-1, keepdim=True)
    return F.cross_entropy(flat, p - gradients)


def drawn_loss(outputs: Tensor, targets: Tensor, loss: Callable[..., Any]) -> Tensor | None:
    """−ln p of targets drawn as from the distribution that the loss takes the outputs for; None: it is not known which.

    Of `cross_entropy`, and of any loss of whole-numbered targets with one dimension less than the outputs, the softmax
    along that dimension; positions with the target that is ignored do not count. Of `mse_loss` the normal distribution
    around the outputs with variance 1, of `binary_cross_entropy_with_logits` an answer for each output, of which again
    only mean and variance are those of draws; both averaged over outputs. The three are known as functions and as
    modules. Weights of classes and label smoothing play no part.
    """
    if loss is F.mse_loss or isinstance(loss, nn.MSELoss):
        return F.mse_loss(outputs, outputs.detach() + torch.randn_like(outputs)) / 2
    if loss is F.binary_cross_entropy_with_logits or isinstance(loss, nn.BCEWithLogitsLoss):
        p = outputs.detach().sigmoid()
        signs = torch.empty_like(p).bernoulli_(0.5).mul_(2).sub_(1)
        return F.binary_cross_entropy_with_logits(outputs, p + (p * (1 - p)).sqrt() * signs)
    classes = _class_dimension(outputs, targets, loss)
    if classes is None:
        return None
    logits = outputs.movedim(classes, -1)
    if targets.is_floating_point() or targets.shape != logits.shape[:-1]:  # a share for each class
        return drawn_cross_entropy(logits)
    return drawn_cross_entropy(logits[targets != getattr(loss, "ignore_index", _IGNORED)])


def _class_dimension(outputs: Tensor, targets: Tensor, loss: Callable[..., Any]) -> int | None:
    """None where it does not follow from the loss or from the shapes."""
    if loss is F.cross_entropy or isinstance(loss, nn.CrossEntropyLoss):
        return min(1, outputs.dim() - 1)
    if targets.is_floating_point():
        return None
    shape = outputs.shape
    fitting = [at for at in range(len(shape)) if (*shape[:at], *shape[at + 1 :]) == tuple(targets.shape)]
    return fitting[0] if len(fitting) == 1 else None

"""Orthogonality of frames: penalties that vanish when a frame's columns are orthonormal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.layers import Factorization

Penalty = Callable[[Tensor], Tensor]


def frames(model: nn.Module) -> Iterator[Tensor]:
    """The frames of every factorization in the model."""
    for module in model.modules():
        if isinstance(module, Factorization):
            yield from module.frames()


def orthogonality(model: nn.Module, kind: Literal["so", "srip"]) -> Tensor:
    """Sum of the penalty over all frames of the model; 0 when there is none.

    A sum, not a mean, so that the pull on one frame does not depend on how many others there are (Yang et al.,
    "Learning Low-rank Deep Neural Networks via Singular Vector Orthogonality Regularization", 2020).

    >>> float(orthogonality(nn.Linear(2, 2), "so"))
    0.0
    """
    total = torch.zeros(())
    for frame in frames(model):
        total = total.to(frame.device) + PENALTIES[kind](frame)
    return total


def soft_orthogonality(frame: Tensor) -> Tensor:
    """‖QᵀQ − I‖²_F / r²: soft orthogonality, comparable across shapes.

    Symbols: Q is m × r. Formula: Yang et al. 2020 (arXiv:2004.09031), eq. 3. For r > m, where no frame can
    be orthonormal, the rows are asked to be instead (QQᵀ, r = m). In float32 whatever the frame's type; a frame
    without entries costs 0; NaN gives NaN. O(m·r²).

    >>> float(soft_orthogonality(2 * torch.eye(3, 2)))
    4.5
    """
    deviation = _deviation(frame)
    return deviation.square().sum() / max(1, deviation.shape[0]) ** 2


def srip(frame: Tensor, iterations: int = 2) -> Tensor:
    """σ(QᵀQ − I): the largest deviation from orthonormality in any direction, by power iteration.

    Symbols: Q is m × r; σ the spectral norm. Formula: Bansal, Chen, Wang, "Can We Gain More from Orthogonality
    Regularizations in Training Deep CNNs?" (NeurIPS 2018), with two iterations as there: u = (G−I)v,
    σ ≈ ‖(G−I)u‖/‖u‖, never above the true norm. The start v is drawn from torch's global generator. Gradients
    flow through the last product only, which is exact at a fixed point. r > m, types, empty and NaN as in
    `soft_orthogonality`; an orthonormal frame has value and gradient 0. O(m·r²).

    >>> round(float(srip(2 * torch.eye(3, 2))), 4)
    3.0
    """
    deviation = _deviation(frame)
    with torch.no_grad():
        direction = torch.randn(deviation.shape[0], device=deviation.device)
        for _ in range(iterations):
            direction = F.normalize(deviation @ direction, dim=0)
    norm: Tensor = torch.linalg.vector_norm(deviation @ direction)
    return norm


def _deviation(frame: Tensor) -> Tensor:
    """The smaller Gram matrix minus the identity, in float32."""
    if frame.dim() != 2:
        frame = frame.flatten(1)
    Q = frame.float() if frame.shape[0] >= frame.shape[1] else frame.float().T
    with torch.autocast(Q.device.type, enabled=False):
        gram = Q.T @ Q
    return gram - torch.eye(gram.shape[0], device=gram.device)


PENALTIES: Final[Mapping[str, Penalty]] = {"so": soft_orthogonality, "srip": srip}

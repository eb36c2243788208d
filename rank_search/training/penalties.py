"""Penalties on factorizations: on frames, vanishing when their columns are orthonormal, and on products of factors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.basics import Float
from rank_search.layers import Factorization
from rank_search.training.settings import OrthogonalityKind

Penalty = Callable[[Tensor], Tensor]


def factor_ids(model: nn.Module) -> set[int]:
    """The `id` of every parameter of every factorization in the model, its bias included.

    >>> factor_ids(nn.Linear(2, 2))
    set()
    """
    modules = (module for module in model.modules() if isinstance(module, Factorization))
    return {id(parameter) for module in modules for parameter in module.parameters()}


def frobenius(model: nn.Module) -> Float[Tensor, ""]:
    """½ Σ ‖W‖²_F over the weights W that the model's factorizations stand for (`dense()`); 0 when there is none.

    Formula: Frobenius decay, Khodak, Tenenholtz, Mackey, Fusi, "Initialization and Regularization of Factorized Neural
    Layers" (ICLR 2021, arXiv:2105.01029). Times a weight decay it pulls a factorized layer as ordinary decay (L2)
    pulls the layer that it stands for, however the product is shared between the factors. Summed in float32 or wider;
    NaN gives NaN. It costs what `dense()` does: O(m·n·r) for an m × n weight of rank r.

    >>> float(frobenius(nn.Linear(2, 2)))
    0.0
    """
    total = torch.zeros(())
    for module in model.modules():
        if isinstance(module, Factorization):
            weight = module.dense()
            total = total.to(weight.device) + weight.to(_wide(weight)).square().sum() / 2
    return total


def frames(model: nn.Module) -> Iterator[Tensor]:
    """The frames of every factorization in the model.

    >>> list(frames(nn.Linear(2, 2)))
    []
    """
    for module in model.modules():
        if isinstance(module, Factorization):
            yield from module.frames()


def orthogonality(model: nn.Module, kind: OrthogonalityKind) -> Float[Tensor, ""]:
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


def soft_orthogonality(frame: Float[Tensor, "m ..."]) -> Float[Tensor, ""]:
    """‖QᵀQ − I‖²_F / r²: soft orthogonality, comparable across shapes.

    Symbols: Q is m × r. Formula: Yang et al. 2020 (arXiv:2004.09031), eq. 3. For r > m, where no frame can
    be orthonormal, the rows are asked to be instead (QQᵀ, r = m). In float32, or wider if the frame is; a frame
    without entries costs 0; NaN gives NaN. O(m·r²).

    >>> float(soft_orthogonality(2 * torch.eye(3, 2)))
    4.5
    """
    deviation = _deviation(frame)
    return deviation.square().sum() / max(1, deviation.shape[0]) ** 2


def double_soft_orthogonality(frame: Float[Tensor, "m ..."]) -> Float[Tensor, ""]:
    """(‖QᵀQ − I‖²_F + ‖QQᵀ − I‖²_F) / r²: both Gram matrices at once.

    Symbols: Q is m × r. Formula: DSO of Bansal, Chen, Wang (2018, see `srip`), over r² like `soft_orthogonality`
    (for r > m over m²). The second term is ‖QᵀQ − I‖²_F + m − r, since QQᵀ and QᵀQ have the same eigenvalues but for
    zeros: so this is twice `soft_orthogonality` plus |m − r|/r², pulls exactly twice as hard, and is computed like
    that. An orthonormal frame has gradient 0, but value |m − r|/r². Types and NaN as there. O(m·r²).

    >>> float(double_soft_orthogonality(torch.eye(4, 2)))
    0.5
    """
    rows, columns = frame.flatten(1).shape
    return 2 * soft_orthogonality(frame) + abs(rows - columns) / max(1, min(rows, columns)) ** 2


def mutual_coherence(frame: Float[Tensor, "m ..."]) -> Float[Tensor, ""]:
    """max |QᵀQ − I|: the largest entry, between two columns or of one column with itself.

    Symbols: Q is m × r. Formula: MC of Bansal, Chen, Wang (2018, see `srip`); it needs no division to be comparable
    across shapes. Among equal largest entries the gradient is shared evenly. r > m, types, empty and NaN as in
    `soft_orthogonality`; an orthonormal frame has value and gradient 0. O(m·r²).

    >>> float(mutual_coherence(2 * torch.eye(3, 2)))
    3.0
    """
    deviation = _deviation(frame)
    return deviation.abs().amax() if deviation.numel() else deviation.sum()


def srip(frame: Float[Tensor, "m ..."], iterations: int = 2) -> Float[Tensor, ""]:
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
        direction = torch.randn(deviation.shape[0], device=deviation.device, dtype=deviation.dtype)
        for _ in range(iterations):
            direction = F.normalize(deviation @ direction, dim=0)
    norm: Tensor = torch.linalg.vector_norm(deviation @ direction)
    return norm


def _deviation(frame: Float[Tensor, "m ..."]) -> Float[Tensor, "r r"]:
    """The smaller Gram matrix minus the identity, in float32 or wider."""
    if frame.dim() != 2:
        frame = frame.flatten(1)
    Q = frame.to(_wide(frame))
    Q = Q if Q.shape[0] >= Q.shape[1] else Q.T
    with torch.autocast(Q.device.type, enabled=False):
        gram = Q.T @ Q
    return gram - torch.eye(gram.shape[0], device=gram.device, dtype=gram.dtype)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


PENALTIES: Final[Mapping[OrthogonalityKind, Penalty]] = {
    "so": soft_orthogonality,
    "dso": double_soft_orthogonality,
    "mc": mutual_coherence,
    "srip": srip,
}

"""The orthonormal basis of an unfolding, from which every rank's best approximation is a slice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from rank_search.errors import ContractError
from rank_search.layers.layer import Unfolding


class Basis:
    """Singular values and left singular vectors of an m × n unfolding, with the unfolding in those coordinates.

    Symbols: M = U·diag(s)·Vᵀ. `left` is U (m × k, orthonormal columns), `values` is s (k, descending),
    `projected` is UᵀM = diag(s)·Vᵀ (k × n), with k = min(m, n). The best rank-r approximation of M
    (Eckart–Young) is `left[:, :r] @ projected[:r]`, so no rank needs a decomposition of its own.
    """

    __slots__ = ("left", "projected", "values")

    def __init__(self, left: Tensor, values: Tensor, projected: Tensor) -> None:
        self.left = left
        self.values = values
        self.projected = projected


class Bases(Protocol):
    """The bases of one layer's weight: what `Factorization.fit` takes its slices from.

    `bases(unfolding)` gives the `Basis` of that unfolding of the weight, decomposed at most once. `memo` keeps
    anything else that depends on the weight alone (such as the full Tucker core), so that the next `fit` of
    any rank finds it ready. Callers must not change what they are given.
    """

    def __call__(self, unfolding: Unfolding) -> Basis: ...

    def memo(self, key: str, compute: Callable[[], Tensor]) -> Tensor: ...


class DirectBases:
    """Bases computed on the spot and kept for the life of this object: no cache beside it, nothing on disk."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.detach()
        self._bases: dict[Unfolding, Basis] = {}
        self._memo: dict[str, Tensor] = {}

    def __call__(self, unfolding: Unfolding) -> Basis:
        if unfolding not in self._bases:
            self._bases[unfolding] = decompose(unfolding(self._weight))
        return self._bases[unfolding]

    def memo(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]


def decompose(matrix: Tensor) -> Basis:
    """Decompose an m × n matrix by the eigenvectors of its smaller Gram matrix, in float64.

    MMᵀ = U·diag(s²)·Uᵀ when m ≤ n, MᵀM = V·diag(s²)·Vᵀ otherwise. Values below about 1e-8·s₁ are rounding
    noise, far beneath what float32 weights can hold. For m > n, U is completed by a QR factorization, so that
    it is orthonormal even where s is zero.

    Complexity: O(min(m, n)²·max(m, n)), memory O(mn): several times less than a full SVD.

    Raises:
        ContractError: it is not a matrix.

    >>> basis = decompose(torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]]))
    >>> [round(value, 6) for value in basis.values.tolist()]
    [4.0, 3.0]
    """
    if matrix.ndim != 2:
        raise ContractError(
            f"An unfolding makes a matrix of a weight; this one made {list(matrix.shape)}. "
            "Mend the unfolding of the axis (docs/writing-a-plugin.md)."
        )
    exact = matrix.detach().to(torch.float64)
    if exact.shape[0] <= exact.shape[1]:
        left = _eigenvectors(exact @ exact.T)
    else:
        left, _ = torch.linalg.qr(exact @ _eigenvectors(exact.T @ exact))
    projected = left.T @ exact
    values = torch.linalg.vector_norm(projected, dim=1)
    order = torch.argsort(values, descending=True, stable=True)
    dtype = matrix.dtype
    return Basis(
        left[:, order].to(dtype).contiguous(),
        values[order].to(dtype),
        projected[order].to(dtype).contiguous(),
    )


def _eigenvectors(gram: Tensor) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(gram).eigenvectors
    return vectors.flip(-1)

"""The orthonormal basis of an unfolding, from which every rank's best approximation is a slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor

from rank_search.basics import Float
from rank_search.errors import ContractError
from rank_search.layers.blocks import block_diagonal
from rank_search.layers.layer import Unfolding
from rank_search.layers.metric import (
    JITTER,
    WIDE,
    Moment,
    OutputMoment,
    cholesky,
    mean_square,
    output_error,
    roots,
    seen_by,
)


class Basis:
    """Singular values and left singular vectors of an m × n unfolding, with the unfolding in those coordinates.

    Symbols: M = U·diag(s)·Vᵀ. `left` is U (m × k, orthonormal columns), `values` is s (k, descending),
    `projected` is UᵀM = diag(s)·Vᵀ (k × n), with k = min(m, n). The best rank-r approximation of M
    (Eckart–Young) is `left[:, :r] @ projected[:r]`, so no rank needs its own decomposition. Of a grouped layer each of
    them is a stack, with the groups in front: `left[..., :r] @ projected[..., :r, :]`.
    """

    __slots__ = ("left", "projected", "values")
    _ORDER: ClassVar = ("left", "values", "projected")

    def __init__(
        self,
        left: Float[Tensor, "*groups m k"],
        values: Float[Tensor, "*groups k"],
        projected: Float[Tensor, "*groups k n"],
    ) -> None:
        self.left = left
        self.values = values
        self.projected = projected

    @classmethod
    def stacked(cls, bases: Sequence[Basis]) -> Self:
        """Those of the blocks of a grouped layer as one."""
        return cls(*(torch.stack([getattr(each, name) for each in bases]) for name in cls._ORDER))


@dataclass(frozen=True)
class Weighed:
    """A layer's weight in coordinates of its outputs in which squared errors are what the loss makes of them.

    Attributes:
        weight: G^½·W (out × …), G the second moment of the gradients of the loss at the layer's outputs. Of a grouped
            layer G has the diagonal blocks alone, so that G^½·W has groups, too.
        bases: of that weight, for the same inputs.
        half, back: G^½ and G^−½ (out × out), to these coordinates and back; of a diagonal G their diagonals.
    """

    weight: Float[Tensor, "out ..."]
    bases: Bases
    half: OutputMoment
    back: OutputMoment

    @classmethod
    def of(
        cls,
        weight: Float[Tensor, "out ..."],
        gradients: OutputMoment,
        bases: Callable[[Float[Tensor, "out ..."]], Bases],
    ) -> Self:
        """The weight in these coordinates.

        Args:
            bases: makes the bases of a weight.
        """
        half, back = roots(gradients)
        moved = _mapped(half, weight)
        return cls(moved, bases(moved), half, back)

    @property
    def total(self) -> float:
        """tr(G·W·C·Wᵀ): the error if all outputs are lost."""
        return output_error(self.weight, torch.zeros_like(self.weight), self.bases.moment)

    def error(self, weight: Float[Tensor, "out ..."], other: Float[Tensor, "out ..."]) -> float:
        """tr(G·(W − W')·C·(W − W')ᵀ) of two weights as they are."""
        difference = _mapped(self.half, weight.detach() - other.detach())
        return output_error(difference, torch.zeros_like(difference), self.bases.moment)


def _mapped(matrix: OutputMoment, weight: Float[Tensor, "out ..."]) -> Float[Tensor, "out ..."]:
    rows = weight.flatten(1).to(matrix.dtype)
    return (matrix[:, None] * rows if matrix.dim() == 1 else matrix @ rows).view_as(weight).to(weight.dtype)


class Bases(Protocol):
    """The bases of one layer's weight: what `Factorization.fit` takes its slices from.

    `bases(unfolding)` gives the `Basis` of that unfolding of the weight, decomposed at most once. `outputs()` gives
    that of the out × (in·kh·kw) unfolding in which the first r directions are the best r for the layer's outputs;
    without a moment the same as that of the plain unfolding. `moment` is what is known of the layer's inputs: their
    second moment E[x·xᵀ], with x an input patch in the order in · kh · kw (see `rank_search.layers.metric`), or None; a
    fit that takes it into account comes closer to the layer's outputs. Of one-hot inputs it is the diagonal alone, n
    numbers. `memo` keeps anything else that depends on the weight and the moment alone (such as the full Tucker core),
    so that the next `fit` of any rank finds it ready. Callers must not change what they are given. Of a grouped layer
    bases and moments are stacks, one for each block.
    """

    @property
    def moment(self) -> Moment | None:
        """The second moment of the layer's inputs, if it is known."""

    @property
    def weighed(self) -> Weighed | None:
        """The weight as the loss sees it, if that is known: where `fit_to` fits, see there."""

    def __call__(self, unfolding: Unfolding) -> Basis:
        """The basis of this unfolding of the weight."""

    def outputs(self) -> Basis:
        """The basis whose first r directions are the best r for the layer's outputs."""

    def memo(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` gave when this key was first asked for."""


def by_output(weight: Float[Tensor, "out ..."]) -> Float[Tensor, "out inputs_kh_kw"]:
    """The out × (in·kh·kw) unfolding; a linear weight is its own.

    >>> by_output(torch.zeros(4, 2, 3, 3)).shape
    torch.Size([4, 18])
    """
    return weight.flatten(1)


class DirectBases(Bases):
    """Bases computed on the spot and kept for the life of this object: no cache beside it, nothing on disk."""

    def __init__(
        self,
        weight: Float[Tensor, "out ..."],
        moment: Moment | None = None,
        gradients: OutputMoment | None = None,
        groups: int = 1,
    ) -> None:
        self._weight = weight.detach()
        self._moment = moment
        self._groups = groups
        self._weighed: Weighed | None = None
        if gradients is not None:
            seen = block_diagonal(gradients, groups)
            self._weighed = Weighed.of(self._weight, seen, lambda moved: DirectBases(moved, moment, groups=groups))
        self._bases: dict[Unfolding, Basis] = {}
        self._memo: dict[str, Tensor] = {}
        self._outputs: Basis | None = None

    @property
    def moment(self) -> Moment | None:
        return self._moment

    @property
    def weighed(self) -> Weighed | None:
        return self._weighed

    def __call__(self, unfolding: Unfolding) -> Basis:
        if unfolding not in self._bases:
            found = [decompose(unfolding(block)) for block in self._weight.chunk(self._groups)]
            self._bases[unfolding] = found[0] if self._groups == 1 else Basis.stacked(found)
        return self._bases[unfolding]

    def outputs(self) -> Basis:
        if self._moment is None:
            return self(by_output)
        if self._outputs is None:
            self._outputs = output_basis(self._weight, self._moment)
        return self._outputs

    def memo(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]


def decompose(matrix: Tensor) -> Basis:
    """Decompose an m × n matrix by the eigenvectors of its smaller Gram matrix, in float64; large ones in float32.

    MMᵀ = U·diag(s²)·Uᵀ when m ≤ n, MᵀM = V·diag(s²)·Vᵀ otherwise. Values below about 1e-8·s₁ are rounding
    noise, far beneath what float32 weights can hold. For m > n, U is completed by a QR factorization, so that
    it is orthonormal even where s is zero. Where both sides have `WIDE` or more, float32 does (or wider, if the
    matrix is): noise then begins at about 3e-4·s₁, and what a rank above it leaves is the least to within 1e-6.

    Complexity: O(min(m, n)²·max(m, n)), memory O(mn): several times less than a full SVD.

    Raises:
        ContractError: it is not a matrix.

    >>> basis = decompose(torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]]))
    >>> [round(value, 6) for value in basis.values.tolist()]
    [4.0, 3.0]
    """
    if matrix.ndim != 2:
        raise ContractError(
            f"An unfolding returned a tensor of shape {list(matrix.shape)}; it must return a matrix. "
            "Fix the axis's unfolding (docs/writing-a-plugin.md)."
        )
    least = torch.float64 if min(matrix.shape) < WIDE else torch.float32
    exact = matrix.detach().to(torch.promote_types(matrix.dtype, least))
    if exact.shape[0] <= exact.shape[1]:
        left = _eigenvectors(exact @ exact.T)
    else:
        left, _ = torch.linalg.qr(exact @ _eigenvectors(exact.T @ exact))
    projected = left.T @ exact
    del exact  # a third of what is held at the peak
    values = torch.linalg.vector_norm(projected, dim=1)
    order = torch.argsort(values, descending=True, stable=True)
    dtype = matrix.dtype
    return Basis(left.to(dtype)[:, order].contiguous(), values[order].to(dtype), projected.to(dtype)[order])


def output_basis(weight: Float[Tensor, "out ..."], moment: Moment) -> Basis:
    """The basis in which the first r outputs' directions are the best r for these inputs.

    W·C·Wᵀ = U·diag(s²)·Uᵀ. Of all weights of rank r, U_r·U_rᵀ·W has the smallest output error, the sum of the squared
    tail of s. It is the truncation of SVD-LLM (Wang et al. 2024, arXiv:2403.07378: the SVD of W·S with S·Sᵀ = C), which
    needs no inverse when it is written with the left vectors. `left` is U (out × k), `values` is s, `projected` is UᵀW,
    with k = min(out, n). Where the inputs do not tell outputs apart, the weight decides (C has a trace of the identity
    added, `JITTER`): without any inputs it is the plain basis, and s is zero. In float64, O(out·n² + out³); for more
    than `WIDE` outputs, and fewer inputs, O(out·n² + n³), by the eigenvectors of Sᵀ·Wᵀ·W·S instead. With a moment for
    each block of a grouped layer, a stack.

    >>> basis = output_basis(torch.eye(2), torch.diag(torch.tensor([1.0, 9.0])))
    >>> basis.values.tolist(), (basis.left[:, :1] @ basis.projected[:1]).tolist()
    ([3.0, 1.0], [[0.0, 0.0], [0.0, 1.0]])
    """
    if moment.ndim == 3:
        return Basis.stacked([output_basis(*each) for each in zip(weight.chunk(len(moment)), moment, strict=True)])
    matrix, dtype = weight.detach().flatten(1).to(torch.float64), weight.dtype
    trace = JITTER * mean_square(moment.detach()) or 1.0
    if len(matrix) > max(WIDE, matrix.shape[1]):
        left = _left_of_tall(matrix, moment, trace)
        projected = left.T @ matrix
        values = (seen_by(projected, moment) * projected).sum(1).clamp_min(0).sqrt()
        return Basis(left.to(dtype).contiguous(), values.to(dtype), projected.to(dtype).contiguous())
    outputs = seen_by(matrix, moment) @ matrix.T
    left = _eigenvectors(outputs + trace * matrix @ matrix.T)[:, : min(matrix.shape)]
    values = ((outputs @ left) * left).sum(0).clamp_min(0).sqrt()
    return Basis(left.to(dtype).contiguous(), values.to(dtype), (left.T @ matrix).to(dtype).contiguous())


def _left_of_tall(matrix: Float[Tensor, "out n"], moment: Moment, trace: float) -> Float[Tensor, "out n"]:
    """U of W·(C + trace·I)·Wᵀ, from the side of the inputs."""
    C = moment.detach().to(torch.float64, copy=True)
    if C.dim() == 1:
        seen = matrix * (C + trace).sqrt()
    else:
        C.diagonal().add_(trace)
        seen = matrix @ cholesky(C)  # out × n
    del C
    left: Tensor = torch.linalg.qr(seen @ _eigenvectors(seen.T @ seen))[0]
    return left


def _eigenvectors(gram: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """The largest eigenvalue's first."""
    vectors: Tensor = torch.linalg.eigh(gram).eigenvectors
    return vectors.flip(-1)

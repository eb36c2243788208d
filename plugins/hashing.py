"""Structured multi-hashing: the weights of a pool are the cells of one square matrix that a few numbers make."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self, final

import torch
from torch import Tensor, nn

from rank_search.basics import Float
from rank_search.layers import Axis, Bases, Basis, Layer, PooledFactorization, decompose, pool_memo, times


def tiled(weights: Sequence[Tensor], side: int) -> Float[Tensor, "{side} {side}"]:
    """The numbers of the weights one after another as the rows of a square, each weight over its root mean square.

    Cells that are left over are zero.

    >>> tiled([torch.tensor([[3.0, -3.0, 3.0]]), torch.tensor([[2.0], [-2.0]])], 3).tolist()
    [[1.0, -1.0, 1.0], [1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    wide = [weight.to(torch.promote_types(weight.dtype, torch.float32)) for weight in weights]  # squares of 16 bits end
    cells = torch.cat([(weight / (weight.square().mean().sqrt() or 1.0)).flatten() for weight in wide])
    return torch.cat([cells, cells.new_zeros(side**2 - len(cells))]).view(side, side)


class Hashed(PooledFactorization):
    """W_l = s_l · slice_l(M̂): consecutive cells, row by row, of a matrix M̂ that all layers of the pool share.

    Eban et al., "Structured Multi-Hashing for Model Compression" (CVPR 2020, arXiv:1911.11177). N numbers in all are
    the first cells of the smallest square that holds them, in the order of the layers; each layer has a scale s_l of
    its own. Biases are not among them. The one number to choose is the budget, for the whole pool. MACs are the dense
    layer's: only what is stored is less, and each forward makes the rows of M̂ that the layer lies in.

    The start is not the published one (random numbers of unit variance, scales by fan-out), which is for training from
    nothing: it is the M̂ closest to the trained weights, each over its root mean square, and then the s_l that is best
    for the layer's outputs, or its weight where no inputs are known. Rows of unrelated layers stand below each other,
    so that the spectrum falls slowly: without training errors are large, and distillation is advised. A layer's own
    matrix has full rank in general.
    """

    any_geometry = True
    budget: ClassVar[str]
    scale: nn.Parameter

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        count, layers = _cells(layer.members), len(layer.members)
        high = (count - layers - 1) // cls.unit(cls.side(count))
        if high < 1 or len({each.dtype for each in layer.members}) > 1:
            return ()
        return (Axis(cls.budget, 1, high),)

    @classmethod
    @abstractmethod
    def side(cls, count: int) -> int:
        """How many rows and columns the matrix has in which so many numbers are cells."""

    @classmethod
    @abstractmethod
    def unit(cls, side: int) -> int:
        """How many numbers one more of the budget is."""

    @classmethod
    @abstractmethod
    def arranged(cls, matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
        """The matrix so that its best approximation of a rank is the best of that budget."""

    @abstractmethod
    def lines(self, first: int, last: int) -> Float[Tensor, "lines n"]:
        """Rows of M̂, the last not among them."""

    @abstractmethod
    def put(self, left: Float[Tensor, "n b"], right: Float[Tensor, "b n"]) -> None:
        """Set M̂ by the factors of what `arranged` made of it."""

    def dense(self) -> Tensor:
        members, place = self.layer.members, self.layer.place
        start, size, side = _cells(members[:place]), _cells([self.layer]), self.side(_cells(members))
        first, last = start // side, -(-(start + size) // side)
        cells = self.lines(first, last).flatten()[start - first * side :][:size]
        return self.scale * cells.view(self.layer.shape)

    @classmethod
    @torch.no_grad()
    def fit_pool(cls, forms: Sequence[Self], weights: Sequence[Tensor], bases: Sequence[Bases]) -> None:
        first, side = forms[0], cls.side(_cells(forms[0].layer.members))

        def halves() -> Tensor:
            basis = decompose(cls.arranged(tiled(weights, side)))
            return torch.cat(_even(basis))

        budget = int(first.values[cls.budget])
        left, right = pool_memo(bases, weights, cls.__qualname__, halves)[:, :budget].chunk(2)
        first.put(left, right.T)
        for form, weight, each in zip(forms, weights, bases, strict=True):
            form.scale.fill_(1.0)
            form.scale.fill_(_best_scale(form.layer, weight, form.dense(), each.moment))


@final
class Hashing(Hashed):
    """M̂ = A·B, A (n × M) and B (M × n), n = ⌈√N⌉: each cell is a sum of M products of two hashed numbers.

    One number is by the cell's row, the other by its column; M pairs of hashes cost 2·M·n numbers. Training moves A and
    B alike only if they have one size: the fit gives both the root of the singular values.
    """

    budget = "hash_pairs"
    shared = ("by_row", "by_column")

    def __init__(self, layer: Layer, *, hash_pairs: int) -> None:
        super().__init__(layer, hash_pairs=hash_pairs)
        side = self.side(_cells(layer.members))
        self.scale = self.factor(1)
        self.by_row = self.factor(side, hash_pairs)
        self.by_column = self.factor(hash_pairs, side)

    @classmethod
    def side(cls, count: int) -> int:
        return math.isqrt(count - 1) + 1

    @classmethod
    def unit(cls, side: int) -> int:
        return 2 * side

    @classmethod
    def arranged(cls, matrix: Tensor) -> Tensor:
        return matrix

    def lines(self, first: int, last: int) -> Tensor:
        return self.by_row[first:last] @ self.by_column

    def put(self, left: Tensor, right: Tensor) -> None:
        self.by_row.copy_(left)
        self.by_column.copy_(right)


@final
class KroneckerHashing(Hashed):
    """M̂ = Σ A_r ⊗ B_r over R terms, A_r and B_r (d × d), d = ⌈N^¼⌉: the Kronecker variant.

    M̂ is d² × d², about as large as in `Hashing`, and a term costs 2·d² numbers. The closest sum is a truncated SVD of
    the d × d blocks as rows (Van Loan and Pitsianis 1993).
    """

    budget = "terms"
    shared = ("coarse", "fine")

    def __init__(self, layer: Layer, *, terms: int) -> None:
        super().__init__(layer, terms=terms)
        self.size = math.isqrt(self.side(_cells(layer.members)))
        self.scale = self.factor(1)
        self.coarse = self.factor(terms, self.size, self.size)
        self.fine = self.factor(terms, self.size, self.size)

    @classmethod
    def side(cls, count: int) -> int:
        return (math.isqrt(math.isqrt(count - 1)) + 1) ** 2

    @classmethod
    def unit(cls, side: int) -> int:
        return 2 * side

    @classmethod
    def arranged(cls, matrix: Tensor) -> Tensor:
        size = math.isqrt(len(matrix))
        return matrix.view(size, size, size, size).transpose(1, 2).reshape(matrix.shape)

    def lines(self, first: int, last: int) -> Tensor:
        begin, end = first // self.size, -(-last // self.size)
        blocks = torch.einsum("rij,rkl->ikjl", self.coarse[:, begin:end], self.fine)
        return blocks.reshape(-1, self.size**2)[first - begin * self.size :][: last - first]

    def put(self, left: Tensor, right: Tensor) -> None:
        self.coarse.copy_(left.T.reshape(self.coarse.shape))
        self.fine.copy_(right.reshape(self.fine.shape))


def _cells(layers: Sequence[Layer]) -> int:
    return sum(math.prod(layer.shape) for layer in layers)


def _even(basis: Basis) -> tuple[Tensor, Tensor]:
    """Left vectors and right ones (n × k each), both times the root of the singular values."""
    roots = basis.values.clamp_min(0).sqrt()
    return basis.left * roots, basis.projected.T / torch.where(roots > 0, roots, 1.0)


def _best_scale(layer: Layer, weight: Tensor, made: Tensor, moment: Tensor | None) -> float:
    """Of `made`, by least squares: no farther from the weight, or its outputs, than zero is."""
    W, M = (layer.by_group(each.flatten(1).to(torch.float64)) for each in (weight, made))
    seen = M if moment is None else times(M, moment.to(torch.float64))
    square = float((M * seen).sum())
    if square > 0:
        return float((W * seen).sum()) / square
    return 1.0 if moment is None else _best_scale(layer, weight, made, None)

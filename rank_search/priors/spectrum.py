"""The singular values of a matrix and its two sizes: all that a rank estimate looks at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg.blas import dsyrk, ssyrk
from torch import Tensor

from rank_search.basics import Bool, Float
from rank_search.errors import ContractError, LayerError

Values = NDArray[np.float64]

DEAD: Final = 0.05
"""A row or column is dead when its norm is below this fraction of the median norm of its kind."""

_BLOCK: Final = 1024
_SINGLE_BLOCK: Final = 2048
_EPS: Final = float(np.finfo(np.float64).eps)
_SINGLE_EPS: Final = float(np.finfo(np.float32).eps)

_LARGE: Final = 1024
"""From this many rows a spectrum is first tried in single precision: below, it takes a fraction of a second anyway."""

_CLEAR: Final = 25.0
"""How far a squared value must be above the rounding of single precision, in units of that, to be taken from it."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values of a matrix, taken so that it has no more rows than columns.

    Attributes:
        values: all `rows` singular values g₁ ≥ g₂ ≥ …, in the unit of the matrix; rounding noise is exactly zero.
        rows, columns: the two sizes L ≤ M of what is left when dead rows and columns are taken out.
    """

    values: Float[Values, " rows"]
    rows: int
    columns: int

    @property
    def energy(self) -> float:
        """‖Y‖² = Σ g²."""
        return float(self.values @ self.values)

    @classmethod
    def of(cls, matrix: Tensor, where: str) -> Spectrum:
        """Singular values of a matrix by the eigenvalues of its smaller Gram matrix, in float64.

        Symbols: Y (L × M, transposed when it has more rows than columns), YYᵀ = U·diag(g²)·Uᵀ.

        Rows and columns with a norm below 5 % of the median of their kind are left out first: next to filters
        that training has switched off, all others look free of noise. Two kinds of rounding then become zeros:
        of the Gram matrix, whose eigenvalues have errors of a few eps·g₁² (below √(L·eps)·g₁), and of the
        matrix itself, whose rounding errors have a spectral norm below eps(dtype)·g₁.

        A matrix with L ≥ 1024 of no more than single precision is first tried in single precision, which takes half
        of the time. Its squared values have errors of about √L·eps(float32)·g₁². They are kept if those down to
        the largest rank that EVBMF can find, LM/(L+M), are at least 25 times that; what lies below counts by its sum
        alone there. If not, float64 it is.

        Edge cases: a zero matrix, and one without entries, have no rows and no values; any order of rows and
        columns and the transpose give the same spectrum. The matrix is not changed.

        Complexity: O(L²·M) for the Gram matrix, O(L³) for its eigenvalues. Memory O(L²) beside the matrix,
        which is read in blocks. On a GPU all of it runs there, in float64.

        Args:
            matrix: two-dimensional, any floating dtype, on any device.
            where: the place named in an error: the layer and its unfolding.

        Raises:
            LayerError: the matrix has NaN or infinite entries.
            ContractError: it is not two-dimensional.

        >>> Spectrum.of(torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]]), "layer 'fc'").values.tolist()
        [4.0, 3.0]
        """
        tall = _tall(matrix.detach(), where)
        scale = _largest(matrix.detach(), where)
        if scale == 0:
            return cls(np.zeros(0), 0, 0)
        long, short = _alive(tall, scale)
        rows, columns = sorted((int(long.sum()), int(short.sum())))
        values = _values_in_single(tall, scale, long, short) if _single_will_do(rows, tall) else None
        if values is None:
            values = _clipped(_singular_values(_gram(tall, scale, long, short))[:rows], tall.dtype)
        return cls(values * scale, rows, columns)

    @classmethod
    def of_stack(cls, matrices: Float[Tensor, "groups m n"], where: str) -> Spectrum:
        """The spectrum of the blocks of a grouped layer, which are cut to one rank: that of a mean block.

        With s_gi the i-th singular value of block g, g_i² = mean over g of s_gi²: a tail of the spectrum, relative to
        its energy, is that of all blocks together, cut to the same rank. What VBMF takes for noise is the same in every
        block, L × M numbers of one variance, so that each block's squared values have the same expectation, and their
        means are nearer to it. Nothing is left out as dead.

        Blocks of zeros alone have no values. Complexity: O(groups·L²·M).

        Raises:
            LayerError: the matrices have NaN or infinite entries.
            ContractError: they are not matrices.

        >>> Spectrum.of_stack(torch.tensor([[[3.0, 0.0]], [[0.0, 4.0]]]), "layer 'conv'").values.round(4).tolist()
        [3.5355]
        """
        tall = _tall(matrices.detach()[0], where)
        scale = _largest(matrices.detach(), where)
        if scale == 0:
            return cls(np.zeros(0), 0, 0)
        exact = matrices.detach().to(torch.float64) / scale
        gram = exact.mT @ exact if exact.shape[1] >= exact.shape[2] else exact @ exact.mT
        powers = torch.linalg.eigvalsh(gram).clamp_min(0).mean(0).cpu().numpy()[::-1]
        return cls(_clipped(np.sqrt(powers), tall.dtype) * scale, tall.shape[1], tall.shape[0])


def _tall(matrix: Tensor, where: str) -> Tensor:
    if matrix.ndim != 2:
        raise ContractError(
            f"{where} has the shape {tuple(matrix.shape)}; an unfolding must have two dimensions. "
            "Fix the unfoldings of the factorization's axes (docs/writing-a-plugin.md)."
        )
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def _largest(matrix: Tensor, where: str) -> float:
    if matrix.numel() == 0:
        return 0.0
    low, high = (float(end) for end in torch.aminmax(matrix))
    if not np.isfinite([low, high]).all():
        bad = int((~torch.isfinite(matrix)).sum())
        raise LayerError(
            f"{where} has {bad} NaN or infinite entries out of {matrix.numel()}; weights must be finite. "
            "Load a checkpoint from before training diverged, or exclude the layer ([layers] exclude)."
        )
    return max(-low, high)


def _blocks(tall: Float[Tensor, "long short"], scale: float) -> Iterator[tuple[slice, Float[Values, "block short"]]]:
    """Consecutive rows of the matrix over `scale`, as contiguous float64 arrays of a bounded size."""
    for start in range(0, tall.shape[0], _BLOCK):
        part = slice(start, start + _BLOCK)
        block = tall[part].to(torch.float64).contiguous().numpy()
        yield part, block / scale


def _alive(
    tall: Float[Tensor, "long short"], scale: float
) -> tuple[Bool[NDArray[np.bool_], " long"], Bool[NDArray[np.bool_], " short"]]:
    """Which rows and which columns of the tall matrix are not dead, judged on the whole matrix."""
    if tall.is_contiguous():
        long, short = _squares(tall, scale)
    else:  # in the order in which it lies in memory: half of the time
        short, long = _squares(tall.T, scale)
    return _above_dead(np.sqrt(long)), _above_dead(np.sqrt(short))


def _squares(
    matrix: Float[Tensor, "rows columns"], scale: float
) -> tuple[Float[Values, " rows"], Float[Values, " columns"]]:
    """The squared norms of rows and columns over `scale`²."""
    if matrix.device.type != "cpu":
        squares = (matrix.to(torch.float64) / scale).square()
        return squares.sum(1).cpu().numpy(), squares.sum(0).cpu().numpy()
    rows, columns = np.zeros(matrix.shape[0]), np.zeros(matrix.shape[1])
    for part, block in _blocks(matrix, scale):
        rows[part] = np.einsum("ij,ij->i", block, block)
        columns += np.einsum("ij,ij->j", block, block)
    return rows, columns


def _above_dead(norms: Float[Values, " n"]) -> Bool[NDArray[np.bool_], " n"]:
    # The median of the norms that are not zero: a layer with most filters pruned away still has a scale.
    keep: NDArray[np.bool_] = norms >= DEAD * np.median(norms[norms > 0])
    return keep


def _gram(
    tall: Float[Tensor, "long short"],
    scale: float,
    long: Bool[NDArray[np.bool_], " long"],
    short: Bool[NDArray[np.bool_], " short"],
) -> Float[Tensor, "alive alive"]:
    """YᵀY of the tall matrix's living rows and columns: symmetric, of which only the lower triangle is filled in."""
    if tall.device.type != "cpu":
        alive = tall[torch.from_numpy(long).to(tall.device)][:, torch.from_numpy(short).to(tall.device)]
        exact = alive.to(torch.float64) / scale
        return exact.mT @ exact
    gram = np.zeros((tall.shape[1], tall.shape[1]), order="F")
    for part, block in _blocks(tall, scale):
        # dsyrk reads the transposed block in place and does half the work of a general product.
        gram = dsyrk(1.0, block[long[part]].T, beta=1.0, c=gram, lower=1, overwrite_c=1)
    return torch.from_numpy(_among(gram, short))


def _among(gram: Float[Values, "n n"], kept: Bool[NDArray[np.bool_], " n"]) -> Float[Values, "kept kept"]:
    return gram if kept.all() else gram[np.ix_(kept, kept)]


def _singular_values(gram: Float[Tensor, "n n"]) -> Float[Values, " n"]:
    # torch's LAPACK is 1.6 times faster than SciPy's at 4096 × 4096, and no slower that matters below.
    powers = torch.linalg.eigvalsh(gram, UPLO="L").cpu().to(torch.float64).numpy()[::-1]
    values: Values = np.sqrt(np.maximum(powers, 0.0))
    return values


def _single_will_do(rows: int, tall: Float[Tensor, "long short"]) -> bool:
    """Whether single precision is worth a try: of a large matrix that holds no more, where double is the slower."""
    return rows >= _LARGE and torch.finfo(tall.dtype).eps >= _SINGLE_EPS and tall.device.type == "cpu"


def _values_in_single(
    tall: Float[Tensor, "long short"],
    scale: float,
    long: Bool[NDArray[np.bool_], " long"],
    short: Bool[NDArray[np.bool_], " short"],
) -> Float[Values, " rows"] | None:
    """The values over `scale`, by products in single precision that are added up in double; None if that is unclear."""
    gram = np.zeros((tall.shape[1], tall.shape[1]), order="F")
    for start in range(0, tall.shape[0], _SINGLE_BLOCK):
        part = slice(start, start + _SINGLE_BLOCK)
        # Copied in the order in which it lies in memory, of which ssyrk reads either.
        block = tall[part].T.to(torch.float32).contiguous().numpy() / np.float32(scale)
        alive = block if long[part].all() else block[:, long[part]]
        gram += ssyrk(1.0, alive.T, trans=1, lower=1)
    rows, columns = sorted((int(long.sum()), int(short.sum())))
    values = _singular_values(torch.from_numpy(_among(gram, short).astype(np.float32)))[:rows]
    last = values[min(rows * columns // (rows + columns), rows - 1)]
    is_clear = last**2 > _CLEAR * rows**0.5 * _SINGLE_EPS * values[0] ** 2
    return values if is_clear else None


def _clipped(values: Float[Values, " rows"], dtype: torch.dtype) -> Float[Values, " rows"]:
    # 16: for a handful of rows the errors are no smaller than a few eps, and vbmf's floor lies below this.
    noise = max((max(len(values), 16) * _EPS) ** 0.5, torch.finfo(dtype).eps)
    return np.where(values > noise * values[0], values, 0.0)

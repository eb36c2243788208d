"""The metric of a layer's outputs: how far two weights differ where it counts, on the inputs that the layer sees.

Symbols: W (out × n, n = in·kh·kw) is the weight as a matrix, x one input patch, C = E[x·xᵀ] (n × n) the second moment
of the layer's inputs. Then E‖Wx − W'x‖² = tr((W − W')·C·(W − W')ᵀ). Without data C is the identity, and this is the
squared Frobenius norm of W − W'. Of one-hot inputs C is diagonal: how often each occurs. Its diagonal, n numbers,
stands for it then, wherever a moment is taken.

The metric of the loss is the same in other coordinates. With g the gradient of the loss at one output of the layer and
G = E[g·gᵀ] (out × out), the loss rises by about ½·E[(gᵀ(W − W')x)²], and where g and x are independent that is
½·tr(G·(W − W')·C·(W − W')ᵀ) (K-FAC: Martens and Grosse 2015, arXiv:1503.05671): the output error of G^½W and G^½W'.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from rank_search.basics import Float

RIDGE: Final = 1e-6
"""Of the mean diagonal entry of C: what least squares adds, so that inputs that never occur keep their weight."""

DAMPING: Final = 1e-3
"""Of the mean diagonal entry of G: a direction of the outputs that no gradient has on some batches still counts."""

Moment = Float[Tensor, "*groups n n"] | Float[Tensor, " n"]
"""The second moment of a layer's inputs, or its diagonal where all else in it is zero; a stack for a grouped layer."""

OutputMoment = Float[Tensor, "out out"] | Float[Tensor, " out"]
"""The second moment of the gradients at a layer's outputs, or its diagonal where that is to stand for it."""

JITTER: Final = 1e-10
"""Of the mean diagonal entry: decides between directions that are otherwise the same, and divides nothing by zero."""


WIDE: Final = 4096
"""Inputs or outputs from which on memory and time are saved, at the price of other rounding."""

_BLOCK: Final = 1024


def output_error(
    weight: Float[Tensor, "out ..."], other: Float[Tensor, "out ..."], moment: Moment | None = None
) -> float:
    """Expected squared distance between the outputs of two weights: tr((W − W')·C·(W − W')ᵀ).

    In the square of the outputs' unit, summed over output channels, for one position. In float64 for weights of that
    type, else in float32, summed in float64. Without a moment the squared Frobenius norm. NaN gives NaN. O(out·n²), or
    O(out·n) where the moment is diagonal. Of a grouped layer there is a moment for each block, and the error is the sum
    of the blocks'.

    >>> output_error(torch.tensor([[3.0, 1.0]]), torch.zeros(1, 2), torch.diag(torch.tensor([1.0, 4.0])))
    13.0
    """
    exact = torch.float64 if weight.dtype == torch.float64 else torch.float32
    difference = weight.detach().flatten(1).to(exact) - other.detach().flatten(1).to(exact)
    if moment is not None and moment.ndim == 3:
        difference = difference.view(len(moment), -1, difference.shape[1])
    seen = difference if moment is None else times(difference, moment.to(exact))
    return float(seen.mul_(difference).sum(dtype=torch.float64))


def seen_by(matrix: Float[Tensor, "m n"], moment: Moment) -> Float[Tensor, "m n"]:
    """M·C in float64; of a C of twice `WIDE` or more a block of columns at a time is in float64. O(m·n²).

    Args:
        matrix: in float64.

    >>> seen_by(torch.tensor([[3.0, 1.0]], dtype=torch.float64), torch.diag(torch.tensor([1.0, 4.0]))).tolist()
    [[3.0, 4.0]]
    """
    if moment.dim() == 1:
        return matrix * moment.detach().to(torch.float64)
    parts = torch.split(moment.detach(), _BLOCK if len(moment) >= 2 * WIDE else max(1, len(moment)), dim=1)
    return torch.cat([matrix @ part.to(torch.float64) for part in parts], dim=1)


def times(matrix: Float[Tensor, "*groups m n"], moment: Moment) -> Float[Tensor, "*groups m n"]:
    """M·C, where C may be given as its diagonal. O(m·n²), or O(m·n).

    >>> times(torch.ones(1, 2), torch.tensor([1.0, 4.0])).tolist()
    [[1.0, 4.0]]
    """
    return matrix * moment if moment.dim() == 1 else matrix @ moment


def mean_square(moment: Moment) -> float:
    """The mean of the diagonal of C: that of the squares of the inputs.

    >>> mean_square(torch.tensor([1.0, 3.0])), mean_square(torch.diag(torch.tensor([1.0, 3.0])))
    (2.0, 2.0)
    """
    return float((moment if moment.dim() == 1 else moment.diagonal()).to(torch.float64).mean())


def outer_fits(
    weight: Float[Tensor, "out ..."], inner: Float[Tensor, "n k"], moment: Moment
) -> Float[Tensor, "k+out k"]:
    """Everything that the best last factor needs, for the first r columns of what comes before it, for every r at once.

    Symbols: P (n × k) is what comes before: the layer is A·Pᵀx, and its best A is W·C·P·(Pᵀ·C·P)⁻¹ (least squares).
    With the Cholesky factor L·Lᵀ = Pᵀ·C·P (k × k), Z = W·C·P·L⁻ᵀ (out × k): then A = Z·L⁻¹ (see `outer_fit`), and its
    output error is tr(W·C·Wᵀ) − ‖Z‖². L is triangular, so for the first columns of P the first columns of Z and the
    corner of L are the same, and nothing has to be solved again.

    Returned is L over Z, (k + out) × k, in float64. To C a ridge of `RIDGE` is added: of inputs that never occur the
    weight itself decides, and where C is zero it alone. O(n²·k + k³).

    >>> fits = outer_fits(torch.tensor([[2.0, 5.0]]), torch.eye(2), torch.diag(torch.tensor([1.0, 4.0])))
    >>> fits.round(decimals=3).tolist()  # L is the root of C here, and Z = W·L
    [[1.0, 0.0], [0.0, 2.0], [2.0, 10.0]]
    """
    W, P, C = (each.detach().to(torch.float64) for each in (weight.flatten(1), inner, moment))
    CP = times(P.T, C).T + (RIDGE * mean_square(C) or 1.0) * P  # n × k
    gram = P.T @ CP  # k × k
    jitter = JITTER * float(gram.diagonal().mean()) or 1.0
    L = cholesky(gram + jitter * torch.eye(len(gram)).to(gram))
    Z = torch.linalg.solve_triangular(L, (W @ CP).T, upper=False).T  # out × k
    return torch.cat([L, Z])


def outer_fit(
    fits: Float[Tensor, "*groups k_out k"], width: int, frame: Float[Tensor, "out r"] | None = None
) -> Float[Tensor, "*groups rows {width}"]:
    """The best A (out × width) for the first `width` columns of P; with a frame U (out × r) the best of UUᵀA: UᵀA.

    Args:
        fits: what `outer_fits` returned, or a stack of it; a frame is not for stacks.

    >>> W, C = torch.tensor([[2.0, 5.0]]), torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    >>> outer_fit(outer_fits(W, torch.eye(2), C), 1).round(decimals=3).tolist()
    [[4.5]]
    """
    L, Z = fits[..., :width, :width], seen_outputs(fits, width)
    kept = Z if frame is None else frame.to(Z.dtype).T @ Z  # out × width, or r × width
    best: Tensor = torch.linalg.solve_triangular(L, kept, upper=False, left=False)
    return best


def seen_outputs(fits: Float[Tensor, "*groups k_out k"], width: int) -> Float[Tensor, "*groups out {width}"]:
    """Z (out × width): Z·Zᵀ is the second moment of the outputs of the best A for the first `width` columns of P.

    >>> seen_outputs(torch.tensor([[1.0, 0.0], [0.0, 2.0], [2.0, 10.0]]), 1).tolist()
    [[2.0]]
    """
    return fits[..., fits.shape[-1] :, :width]


def cholesky(matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """L with L·Lᵀ = A, lower triangular, for a symmetric A that is positive definite but for rounding.

    Where it is not, its eigenvalues are floored at `JITTER` of the largest: A is an average of products, and what is
    negative in it is noise. A matrix without a positive eigenvalue counts as the identity. O(n³).

    Raises:
        torch.linalg.LinAlgError: A is not finite.

    >>> cholesky(torch.tensor([[4.0, 4.0], [4.0, 4.0 - 1e-6]])).abs().round(decimals=3).tolist()
    [[2.0, 0.0], [2.0, 0.0]]
    """
    L: Tensor
    L, failed = torch.linalg.cholesky_ex(matrix)
    if not bool(failed.any()):
        return L
    squares, vectors = torch.linalg.eigh(matrix)
    most = float(squares[-1]) if len(squares) else 0.0
    floored = squares.clamp_min(JITTER * most) if most > 0 else torch.ones_like(squares)
    R = torch.linalg.qr(floored.sqrt()[:, None] * vectors.T, mode="r").R
    exact: Tensor = (R * R.diagonal().sign()[:, None]).T
    return exact


def root(moment: Moment, floor: float = 0.0) -> Moment:
    """The symmetric root of a positive semidefinite matrix: R·R = C, in float64, no eigenvalue of C below the floor.

    Of a diagonal its diagonal. O(n³), or O(n).

    >>> root(torch.diag(torch.tensor([4.0, 0.0])), floor=1.0).tolist()
    [[2.0, 0.0], [0.0, 1.0]]
    """
    if moment.dim() == 1:
        return moment.to(torch.float64).clamp_min(floor).sqrt()
    squares, vectors = torch.linalg.eigh(moment.to(torch.float64))
    exact: Tensor = (vectors * squares.clamp_min(floor).sqrt()) @ vectors.T
    return exact


def roots(gradients: OutputMoment) -> tuple[OutputMoment, OutputMoment]:
    """G^½ and G^−½ in float64, G damped (`DAMPING`); a G of zeros counts as the identity. O(out³).

    Of a diagonal the diagonals.

    >>> half, back = roots(torch.diag(torch.tensor([4.0, 1.0])))
    >>> half.diagonal().round(decimals=2).tolist(), (half @ back).round(decimals=9).tolist()
    ([2.0, 1.0], [[1.0, 0.0], [0.0, 1.0]])
    """
    exact = gradients.to(torch.float64)
    damping = DAMPING * mean_square(exact) or 1.0
    if exact.dim() == 1:
        half = (exact.clamp_min(0) + damping).sqrt()
        return half, 1 / half
    squares, vectors = torch.linalg.eigh(exact)
    sizes = (squares.clamp_min(0) + damping).sqrt()
    return (vectors * sizes) @ vectors.T, (vectors / sizes) @ vectors.T


def nested_span(weighted: Float[Tensor, "m k"], metric: Float[Tensor, "m m"]) -> Float[Tensor, "m m"]:
    """Orthonormal columns whose first r span the best r functionals of a factor's inputs, if its metric is a product.

    Symbols: Y (m × k), an unfolding whose rows are weighed by the metric M (m × m): M^½·Y = Q·diag(s)·Vᵀ; the
    functionals are M^−½·Q, made orthonormal in their order (QR), which leaves the span of the first r as it was for
    every r.

    >>> nested_span(torch.diag(torch.tensor([1.0, 2.0])), torch.eye(2)).abs().round().tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    Y = weighted.to(torch.float64)
    jitter = RIDGE * float(metric.diagonal().mean()) or 1.0
    half = root(metric.to(torch.float64) + jitter * torch.eye(len(metric)).to(Y), floor=jitter)
    vectors = torch.linalg.eigh(half @ Y @ Y.T @ half).eigenvectors.flip(-1)
    span: Tensor = torch.linalg.qr(torch.linalg.solve(half, vectors))[0]
    return span

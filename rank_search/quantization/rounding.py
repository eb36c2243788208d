"""Rounding a trained layer to whole numbers of steps, so that bits are spent where its outputs feel them.

Symbols: W (out × n) the weight as a matrix, a row for each output channel; Q (out × n) whole numbers; Δ (out × 1, or
1 × 1) the step of each row; H (n × n) the second moment E[x·xᵀ] of the layer's inputs, or their covariance where a bias
makes up for the mean; s (out × 1) the slope, the squared error of a row's outputs that a bit is worth; b(k) the bits of
a whole number k. What is minimized, for each row by itself, is

    J = (w − Δq)·H·(w − Δq)ᵀ + s·Σ b(q)

as in CERWU (arXiv:2505.18758), with the compensation of OPTQ (Frantar et al. 2023): column after column is rounded, and
the columns that are still to come make up for the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from rank_search.basics import Float, Int
from rank_search.layers import cholesky

PASSES: Final = 2
"""How often a layer is rounded: the bits of the first pass are those of the nearest whole numbers, then of its own."""

STEP_FACTOR: Final = 24.0
"""Δ² in units of slope / curvature. A fine grid would have 6/ln 2 = 8.7; the best whole numbers are few here."""

_COLUMNS: Final = 128  # whose errors are taken from all later columns at once, as one matrix product
_NUMBERS: Final = 1 << 22  # rounded at once: more rows are taken one part after another, which bounds the memory
_PSEUDO: Final = 30.0  # counts laid out as a geometric distribution, so that no whole number is impossible


@dataclass(frozen=True)
class Rate:
    """Bits of each whole number from −reach to reach."""

    bits: Float[Tensor, " numbers"]

    @classmethod
    def of(cls, whole: Tensor, reach: int) -> Rate:
        """The bits of numbers that occur as often as these, under their smoothed frequencies.

        With n numbers, c(k) of them k and a geometric distribution g(k) ∝ θ^|k|, θ = m/(1 + m) for their mean
        magnitude m (at least 0.01): b(k) = −log₂((c(k) + 30·g(k))/(n + 30)). Numbers beyond the reach count as ±reach.
        No number at all: the bits of g. O(n + reach).

        >>> abs(float(Rate.of(torch.zeros(970), 0)(torch.zeros(1))))
        0.0
        """
        counts = torch.zeros(2 * reach + 1, dtype=torch.float64)
        for some in torch.split(whole.flatten(), _NUMBERS):
            counts += torch.bincount(some.long().clamp(-reach, reach) + reach, minlength=2 * reach + 1).double()
        magnitudes = torch.arange(-reach, reach + 1).abs().double()
        mean = max(float((counts * magnitudes).sum() / counts.sum()), 0.01) if whole.numel() else 1.0
        prior = (mean / (1 + mean)) ** magnitudes
        share = (counts + _PSEUDO * prior / prior.sum()) / (counts.sum() + _PSEUDO)
        return cls(-torch.log2(share))

    @property
    def reach(self) -> int:
        """The largest whole number that has bits."""
        return len(self.bits) // 2

    def __call__(self, whole: Tensor) -> Tensor:
        return self.bits[whole.long() + self.reach]


def cost(
    weight: Float[Tensor, "out n"],
    whole: Float[Tensor, "out n"],
    step: Float[Tensor, "rows 1"],
    curvature: Float[Tensor, "n n"],
    rate: Rate,
    slope: Float[Tensor, "out 1"],
) -> Float[Tensor, " out"]:
    """J of each row (out): the error of its outputs, and what its bits are worth.

    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> cost(2.5 * one, 2 * one, one, 4 * one, Rate(torch.zeros(5)), one).tolist()
    [1.0]
    """
    error = weight.double() - whole.double() * step
    return ((error @ curvature.double()) * error).sum(1) + slope[:, 0] * rate(whole).sum(1)


def pivots(curvature: Float[Tensor, "n n"], damping: float = 1e-2) -> tuple[Int[Tensor, " n"], Float[Tensor, "n n"]]:
    """In which order columns are rounded, and the triangle U by which the later ones make up for the earlier.

    The order is that of falling curvature, ties in place. With the damping δ, H' = H + δ·mean(diag H)·I in that order,
    and U is upper triangular with Uᵀ·U = H'⁻¹: 1/U²ᵢᵢ is the curvature of column i once all later ones make up for it
    (the *pivot*). A curvature of zero counts as the identity, and what is negative in H as noise. O(n³).

    Raises:
        torch.linalg.LinAlgError: H is not finite.

    >>> order, U = pivots(torch.diag(torch.tensor([1.0, 4.0])), damping=0.0)
    >>> order.tolist(), U.diagonal().tolist()
    ([1, 0], [0.5, 1.0])
    """
    damped = _damped(curvature.double(), damping)
    order = torch.argsort(damped.diagonal(), descending=True, stable=True)
    back = order.flip(0)
    R = cholesky(damped[back][:, back]).flip(0, 1)  # upper triangular, R·Rᵀ = H' in that order: U is its inverse
    U: Tensor = torch.linalg.solve_triangular(R, torch.eye(len(R)).to(R), upper=True)
    return order, U


def _damped(H: Float[Tensor, "n n"], damping: float) -> Float[Tensor, "n n"]:
    mean = float(H.diagonal().mean()) if len(H) else 0.0
    damped = H.clone()
    damped.diagonal().add_(damping * mean if mean > 0 else 1.0)
    return damped


def cheapest(exact: Float[Tensor, "*numbers"], weight: Tensor, rate: Rate) -> Float[Tensor, "*numbers"]:
    """Of the whole numbers that can be best, the one that minimizes (q − x)² + weight·b(q), for each exact number x.

    The weight is one, or one for each number or row: it is broadcast (numbers × 1).

    Tried are the two beside x, those one nearer to zero than each, and zero; the first of equals is taken, in the order
    nearest, other, nearer, zero. Numbers beyond the rate's reach are not tried. O(n).

    >>> dear = Rate(torch.tensor([9.0, 1.0, 9.0]))  # bits of −1, 0 and 1
    >>> cheapest(torch.tensor([0.6, 7.0]), torch.tensor(0.1), dear).tolist()
    [0.0, 1.0]
    """
    nearest = exact.round()
    other = nearest + torch.where(exact >= nearest, 1.0, -1.0)
    tried = torch.stack([nearest, other, nearest - nearest.sign(), other - other.sign(), torch.zeros_like(nearest)])
    tried = tried.clamp(-rate.reach, rate.reach)
    best = ((tried - exact).square() + weight * rate(tried)).argmin(0, keepdim=True)
    return tried.gather(0, best)[0]


def round_compensated(
    weight: Float[Tensor, "out n"],
    step: Float[Tensor, "rows 1"],
    curvature: Float[Tensor, "n n"],
    rate: Rate,
    slope: Float[Tensor, "out 1"],
    pivoted: tuple[Int[Tensor, " n"], Float[Tensor, "n n"]],
) -> Float[Tensor, "out n"]:
    """Whole numbers whose J is small, and in no row larger than that of the nearest ones.

    A column takes the whole number that minimizes (w − Δq)²/U²ᵢᵢ + s·b(q), and its error e is taken from the later
    columns as e·Uᵢⱼ/Uᵢᵢ, which is their best answer to it. Where H is diagonal this is rounding each weight by itself.
    A row for which the nearest whole numbers, or those chosen without compensation, are better takes them.

    Args:
        weight: W; `step`: Δ; `curvature`: H; `slope`: s, not negative.
        rate: of whole numbers up to a reach; the weights are within it, or are cut off.
        pivoted: the order and U of H, from `pivots`: the same for every rate.

    Returned out × n, in float64. O(out·n²).

    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> H = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    >>> round_compensated(torch.tensor([[0.4, 0.4]]), one, H, Rate(torch.zeros(5)), one, pivots(H)).tolist()
    [[0.0, 1.0]]
    """
    found, each = torch.empty(weight.shape, dtype=torch.float64), max(1, _NUMBERS // max(1, weight.shape[1]))
    for rows in torch.split(torch.arange(len(weight)), each):
        own = step if len(step) == 1 else step[rows]
        found[rows] = _round_rows(weight[rows], own, curvature, rate, slope[rows], pivoted)
    return found


def _round_rows(
    weight: Float[Tensor, "out n"],
    step: Float[Tensor, "rows 1"],
    curvature: Float[Tensor, "n n"],
    rate: Rate,
    slope: Float[Tensor, "out 1"],
    pivoted: tuple[Int[Tensor, " n"], Float[Tensor, "n n"]],
) -> Float[Tensor, "out n"]:
    exact = weight.double() / step
    diagonal = curvature.double().diagonal() * step.square()
    alone = cheapest(exact, slope / diagonal.clamp_min(torch.finfo(torch.float64).tiny), rate)
    tried = [
        exact.round().clamp(-rate.reach, rate.reach),
        alone,
        _compensated(exact, slope / step.square(), rate, *pivoted),
    ]
    costs = torch.stack([cost(weight, whole, step, curvature, rate, slope) for whole in tried])  # 3 × out
    best = costs.argmin(0)
    return torch.stack(tried)[best, torch.arange(len(exact))]


def _compensated(
    exact: Float[Tensor, "out n"],
    slope: Float[Tensor, "rows 1"],
    rate: Rate,
    order: Int[Tensor, " n"],
    U: Float[Tensor, "n n"],
) -> Float[Tensor, "out n"]:
    """Columns lie as rows here, each in one piece of memory.

    The errors of some columns are taken from the later ones beyond them together: a product of matrices, many times
    faster than column by column.
    """
    left, slope = exact.T[order].contiguous(), slope[:, 0]  # n × out, and out or 1
    whole, pivot = torch.empty_like(left), U.diagonal()
    for begin in range(0, len(left), _COLUMNS):
        end = min(begin + _COLUMNS, len(left))
        errors = torch.empty(end - begin, left.shape[1], dtype=left.dtype)  # columns × out
        for column in range(begin, end):
            whole[column] = cheapest(left[column], slope * pivot[column].square(), rate)
            error = (left[column] - whole[column]) / pivot[column]
            left[column + 1 : end] -= U[column, column + 1 : end, None] * error
            errors[column - begin] = error
        left[end:] -= U[begin:end, end:].T @ errors
    back = torch.empty_like(whole)
    back[order] = whole
    return back.T


@dataclass(frozen=True)
class Block:
    """Some columns of a weight, their curvature and its pivots: what other columns do is not looked at."""

    columns: slice
    curvature: Float[Tensor, "n n"]
    pivoted: tuple[Int[Tensor, " n"], Float[Tensor, "n n"]]


def round_blocks(
    weight: Float[Tensor, "out n"],
    step: Float[Tensor, "rows 1"],
    blocks: Sequence[Block],
    slope: Float[Tensor, "out 1"],
) -> Float[Tensor, "out n"]:
    """Whole numbers of a layer: `round_compensated` in each block, under the bits that all of them together then have.

    With a slope of zero and a diagonal curvature these are the nearest ones. Without any numbers nothing is done.
    O(out·n·b), b columns in the widest block.

    >>> one, H = torch.ones(1, 1, dtype=torch.float64), torch.eye(1)
    >>> blocks = [Block(slice(0, 1), H, pivots(H)), Block(slice(1, 2), H, pivots(H))]
    >>> round_blocks(torch.tensor([[0.4, 2.6]]), one, blocks, 0 * one).tolist()
    [[0.0, 3.0]]
    """
    whole = torch.empty(weight.shape, dtype=torch.float32)  # which holds them exactly, in half of the memory
    for block in blocks:
        whole[:, block.columns] = (weight[:, block.columns].double() / step).round().float()
    reach = int(whole.abs().max()) + 2 if whole.numel() else 0
    rate = Rate.of(whole, reach)
    for _ in range(PASSES):
        for block in blocks:
            own = weight[:, block.columns]
            found = round_compensated(own, step, block.curvature, rate, slope, block.pivoted)
            whole[:, block.columns] = found.float()
        rate = Rate.of(whole, reach)
    return whole


def step_for(slope: float, curvature: float) -> float:
    """The step at which a bit less costs as much error as the slope says: √(factor·slope/curvature).

    On a fine grid the error of a weight is hΔ²/12, and a bit less doubles Δ, so that dD/dR = −(ln 2/6)·hΔ² and
    Δ² = (6/ln 2)·slope/h. On coarse grids, where most whole numbers are zero, `STEP_FACTOR` was found to be better.

    >>> step_for(1.0, 6.0)
    2.0
    """
    return float((STEP_FACTOR * slope / curvature) ** 0.5)


def refit(
    weight: Float[Tensor, "out n"], moment: Float[Tensor, "n n"], cross: Float[Tensor, "n n"], damping: float = 1e-2
) -> Float[Tensor, "out n"]:
    """The weight that gives the old outputs on the new inputs, by least squares: W + W·(C − H)·(H + δ·mean·I)⁻¹.

    Symbols: x the inputs of the network as it was, z what they are once the layers before have been rounded,
    H = E[z·zᵀ] (`moment`), C = E[x·zᵀ] (`cross`), both n × n. Returned out × n, in float64. The damping holds it close
    to W where H says little. H = C gives W. O(n³).

    >>> C = torch.tensor([[2.0]])
    >>> refit(torch.tensor([[3.0]]), C, 2 * C, damping=0.0).tolist()
    [[6.0]]
    """
    W, H, C = weight.double(), moment.double(), cross.double()
    change: Tensor = torch.cholesky_solve((W @ (C - H)).T, cholesky(_damped(H, damping))).T
    return W + change

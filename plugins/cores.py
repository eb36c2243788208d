"""What tensor trains and sums of Kronecker products share: chunks of channels, and the best core for the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import Layer, cholesky, root

RIDGE: Final = 1e-6  # of the mean diagonal entry
SWEEPS: Final = 2  # of alternating least squares: the first brings most of what there is to gain
UNKNOWNS: Final = 2048  # in a row of a core, up to which it is solved for
OTHERS: Final = 4096  # rank × inputs that are not the core's: memory is the square of that
REACH: Final = 2**16  # rank × inputs: time is the square of that


def halves(size: int) -> tuple[int, int]:
    """Two factors as close to each other as can be, the smaller one first.

    >>> halves(64), halves(12), halves(7)
    ((8, 8), (3, 4), (1, 7))
    """
    small = max(n for n in range(1, math.isqrt(size) + 1) if size % n == 0)
    return small, size // small


def thirds(size: int) -> tuple[int, int, int]:
    """Three factors of the least sum, the smallest one first.

    >>> thirds(64), thirds(12), thirds(7)
    ((4, 4, 4), (2, 2, 3), (1, 1, 7))
    """
    found = [(n, *halves(size // n)) for n in range(1, math.isqrt(size) + 1) if size % n == 0]
    smallest, middle, largest = sorted(min(found, key=sum))
    return smallest, middle, largest


def on_chunks(layer: Layer, x: Tensor, chunks: int, apply: Callable[[Tensor], Tensor]) -> Tensor:
    """The same on each chunk of the channels of x: what `apply` gives, with a dimension for the chunks before channels.

    Args:
        apply: maps a batch of inputs of the layer's kind that have a chunk's channels.
    """
    channels = layer.channels
    parts = torch.unflatten(x, channels, (chunks, -1))
    if channels == -1 or x.dim() == -channels:  # a layer of vectors takes what lies before them as it is
        return apply(parts)
    return torch.unflatten(apply(parts.flatten(0, channels - 1)), 0, (-1, chunks))


def biased(layer: Layer, outputs: Tensor, bias: Tensor | None) -> Tensor:
    """With the bias added, if there is one."""
    return outputs if bias is None else outputs + bias.view(-1, *[1] * (-1 - layer.channels))


def ridged(moment: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """The moment in float64, with a ridge: inputs that never occur keep their weight, and where it is zero all do."""
    C = moment.to(torch.float64)
    return C + (RIDGE * _mean_square(C) or 1.0) * torch.eye(len(C)).to(C)


def marginal_roots(C: Float[Tensor, "n n"], sizes: tuple[int, ...]) -> list[Float[Tensor, "size size"]]:
    """For each mode of the inputs the root of its own second moment, in units of its mean square.

    Where C is the Kronecker product of its modes' moments, so is its root, but for a number. For one mode after the
    other, what others see is averaged.

    >>> first, second = marginal_roots(torch.diag(torch.tensor([1.0, 4.0, 9.0, 36.0])), (2, 2))
    >>> [(moment.square().diagonal() / moment[0, 0] ** 2).round(decimals=6).tolist() for moment in (first, second)]
    [[1.0, 9.0], [1.0, 4.0]]
    """
    found = []
    for mode, size in enumerate(sizes):
        before = math.prod(sizes[:mode])
        parts = C.view(before, size, -1, before, size, len(C) // (before * size))
        moment = torch.einsum("aibajb->ij", parts)
        found.append(root(moment / _mean_square(moment), floor=RIDGE))
    return found


def is_solved(rank: int, size: int, inputs: int) -> bool:
    """Whether least squares for a core of rank × size unknowns in each of its rows is affordable."""
    return rank * size <= UNKNOWNS and rank * (inputs // size) <= OTHERS and rank * inputs <= REACH


def best_end(
    wanted: Float[Tensor, "rows size g q"], metric: Float[Tensor, "size q size q"], others: Float[Tensor, "rank g q"]
) -> Float[Tensor, "rows size rank"]:
    """The core X with which W'[(a, g), (i, q)] = Σᵣ X[a, i, r]·H[r, g, q] is closest to W for these inputs.

    Outputs are (a, g), inputs (i, q). Least squares, with the same matrix for each a. Complexity:
    O((rank·inputs)² + (rank·q)²·g + (rank·size)³).

    Args:
        wanted: W·C, with these four modes.
        metric: C, positive definite.
        others: H, all that is not X.
    """
    seen = torch.einsum("rgq,sgp->rqsp", others, others)
    gram = torch.einsum("iqjp,rqsp->irjs", metric, seen)
    rows, size, rank = len(wanted), wanted.shape[1], len(others)
    right = torch.einsum("aigq,rgq->air", wanted, others).reshape(rows, -1)
    return least_squares(gram.reshape(size * rank, -1), right).view(rows, size, rank)


def least_squares(gram: Float[Tensor, "k k"], right: Float[Tensor, "rows k"]) -> Float[Tensor, "rows k"]:
    """X with X·G = R, for a positive semidefinite G; a small ridge decides what it leaves open."""
    ridge = RIDGE**2 * _mean_square(gram) or 1.0
    return torch.cholesky_solve(right.T, cholesky(gram + ridge * torch.eye(len(gram)).to(gram))).T


def _mean_square(moment: Tensor) -> float:
    return float(moment.diagonal().mean())

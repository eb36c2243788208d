"""Grouped layers: the weight is a block for each group, out/groups × in/groups × kernel, one below the other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rank_search.basics import Float


def by_block(compute: Callable[..., Tensor], groups: int, weight: Tensor, *others: Tensor) -> Tensor:
    """What is computed of a weight; of a grouped layer's, what is computed of each block, as a stack (groups × …).

    Args:
        others: further arguments; of a grouped layer stacks, of one argument for each block.

    >>> by_block(torch.sum, 2, torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [3.0, 7.0]
    """
    if groups == 1:
        return compute(weight, *others)
    return torch.stack([compute(*each) for each in zip(weight.chunk(groups), *others, strict=True)])


def block_diagonal(
    matrix: Float[Tensor, "n n"] | Float[Tensor, " n"], groups: int
) -> Float[Tensor, "n n"] | Float[Tensor, " n"]:
    """The matrix with zeros outside its diagonal blocks; a diagonal, given as such, is its own.

    >>> block_diagonal(torch.ones(2, 2), 2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if groups == 1 or matrix.dim() == 1:
        return matrix
    group = torch.arange(len(matrix), device=matrix.device) // (len(matrix) // groups)
    return torch.where(group[:, None] == group, matrix, 0.0)

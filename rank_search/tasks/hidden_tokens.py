"""Tokens that a masked language model is to find again."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from rank_search.basics import Int

NOT_HIDDEN: Final = -100
"""Stands in targets where nothing is to be found; PyTorch's cross-entropy leaves it out."""


def with_hidden(
    windows: Int[Tensor, "windows length"], mask_token: int, share: float, generator: torch.Generator | None = None
) -> tuple[Int[Tensor, "windows length"], Int[Tensor, "windows length"]]:
    """Windows with a share of their tokens hidden, and the tokens there, `NOT_HIDDEN` elsewhere.

    Every window has round(share · length) hidden tokens, at least one, at places drawn without replacement. Each is
    replaced by the mask token; BERT (Devlin et al. 2019, section 3.1) leaves a fifth of them visible or puts a random
    token there, for a model that is trained to be used on text in which nothing is hidden. O(n log n), n tokens of a
    window, for each.

    Args:
        generator: draws the places; None: torch's global one.

    >>> hidden, targets = with_hidden(torch.tensor([[5, 6, 7, 8]]), 0, 0.5)
    >>> int((hidden == 0).sum()), bool((torch.where(hidden == 0, targets, hidden) == torch.arange(5, 9)).all())
    (2, True)
    """
    count = max(1, round(share * windows.shape[1]))
    places = torch.rand(windows.shape, generator=generator).argsort(1)[:, :count].to(windows.device)
    targets = torch.full_like(windows, NOT_HIDDEN).scatter(1, places, windows.gather(1, places))
    return windows.scatter(1, places, mask_token), targets

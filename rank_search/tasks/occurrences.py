"""How often each of some one-hot inputs occurs: the diagonal of their second moment, which is all of it."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from rank_search.basics import Float
from rank_search.layers import Layer


@final
class Occurrences:
    """How often each input of a layer has been seen so far.

    Args:
        most: how many are looked at in one call of the layer.
    """

    def __init__(self, layer: Layer, most: int) -> None:
        self.layer, self._most = layer, most
        self._counts: Tensor | None = None
        self.count = 0
        self.is_full = False

    def take(self, x: Tensor) -> None:
        """Count the inputs of one call of the layer."""
        if self.is_full:
            return
        seen = self.layer.columns(x.detach(), self._most)
        found = torch.bincount(seen, minlength=self.layer.in_features)[: self.layer.in_features]
        self._counts = found.to(torch.float64) if self._counts is None else self._counts + found
        self.count += len(seen)

    def mean(self) -> Tensor | None:
        """How often each is to be expected; None where the layer has seen nothing."""
        return frequencies(self._counts).to(torch.float32) if self._counts is not None and self.count else None


def frequencies(counts: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """How often each of n things is to be expected, after they have been seen so often: numbers whose sum is one.

    Symbols: of N things seen, m occurred once, so that the next one is new with a chance of about m/N (Good 1953, The
    population frequencies of species); here (m + 1)/(N + 1). That share is spread over all n, the rest goes by counts:
    what was not seen on a few batches is rare, and counts all the same.

    >>> frequencies(torch.tensor([3.0, 1.0, 0.0, 0.0]))
    tensor([0.5500, 0.2500, 0.1000, 0.1000])
    """
    total = float(counts.sum())
    new = (float((counts == 1).sum()) + 1) / (total + 1)
    return counts * ((1 - new) / max(total, 1)) + new / len(counts)

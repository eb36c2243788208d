"""Averaged weights: what is measured instead of the last ones, if the settings ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from rank_search.training.after_steps import apart_ids


@final
class Average:
    """The exponential moving average of all parameters that optimizers move, over the steps of a training.

    What forms move themselves, such as thresholds on their way up, stays what it is in the end (see `apart_ids`): with
    an average of it, what the threshold has put to zero would be back.

    Symbols: w_i the weights after step i, t steps so far, d the decay (0 < d < 1): the average is
    (1 − d) Σ dᵗ⁻ⁱ w_i / (1 − dᵗ), i from 1 to t. Formula: Polyak & Juditsky, "Acceleration of Stochastic Approximation
    by Averaging" (1992), with exponential weights, and the correction of Kingma & Ba, "Adam" (2015), section 3, so
    that the weights before the first step count for nothing. Kept in float32 or wider. Before the first step it is
    the weights themselves. O(n) a step, n weights.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> average = Average(model, 0.5)
    >>> for step, weight in enumerate((1.0, 4.0), 1):
    ...     _ = nn.init.constant_(model.weight, weight)
    ...     average.update(step)
    >>> float(average.tensors["weight"])  # (0.25 · 1 + 0.5 · 4) / 0.75
    3.0
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        apart = apart_ids(model)
        self._trained = {
            name: each for name, each in model.named_parameters() if each.requires_grad and id(each) not in apart
        }
        self.tensors = {name: each.detach().to(_wide(each), copy=True) for name, each in self._trained.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after this step in, counted from 1."""
        share = (1 - self._decay) / (1 - self._decay**step)
        for name, average in self.tensors.items():
            average.lerp_(self._trained[name].to(average.dtype), share)

    @torch.no_grad()
    def put(self) -> None:
        """Give the model the averaged weights."""
        for name, average in self.tensors.items():
            self._trained[name].copy_(average)

    def load(self, kept: Mapping[str, Tensor]) -> None:
        """Go on from tensors that were kept."""
        for name, average in self.tensors.items():
            average.copy_(kept[name])


def _wide(parameter: Tensor) -> torch.dtype:
    return torch.promote_types(parameter.dtype, torch.float32)

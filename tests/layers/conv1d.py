"""A layer like the `Conv1D` of transformers, for tests that do without that package."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Conv1D(nn.Module):
    """As transformers has it: y = x·W + b, with W in × out."""

    def __init__(self, out: int, entering: int) -> None:
        super().__init__()
        self.nf, self.nx = out, entering
        self.weight = nn.Parameter(torch.randn(entering, out))
        self.bias = nn.Parameter(torch.randn(out))

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.addmm(self.bias, x.reshape(-1, x.size(-1)), self.weight)
        return rows.view(*x.shape[:-1], self.nf)

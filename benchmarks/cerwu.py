"""CERWU (Conzelmann and Bamler, arXiv:2505.18758): a network's layers rounded by its authors' compiled quantizer.

The quantizer is `nn_compression._core` of github.com/Conzel/cerwu; where it cannot be imported there are no rows of it:

    git clone --recurse-submodules https://github.com/Conzel/cerwu && pip install --no-deps ./cerwu

The authors' Python around it needs timm, TensorFlow and torch 2.2, so what it does with a layer is written down here:

    H = 2·E[X·Xᵀ] of the network as it was, sum over positions and mean over images, + 1 % of its mean diagonal;
    Δ = 2·max|W| / bins, γ = 1 / (ln 2 · Var(W/Δ));
    H' = Δ²·H + λγ·I, W' = W/Δ · Δ²·H · H'⁻¹, U = the upper Cholesky factor of (H' + 1 % of its mean diagonal)⁻¹;

then the quantizer goes over W' row by row, with the rate of DeepCABAC less γ/2·q² for each whole number q.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

DAMPING: Final = 0.01

Quantizer = Callable[[Mapping[str, Any]], Any]


def layers_of(model: nn.Module) -> Iterator[tuple[str, nn.Conv2d | nn.Linear]]:
    """What CERWU rounds; ungrouped convolutions only."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
            yield name, module


@torch.no_grad()
def hessians(model: nn.Module, feed: Callable[[nn.Module, Any], Any], batches: list[Any]) -> dict[str, Tensor]:
    """H of each layer, n × n, in float32 as theirs."""
    found = {name: torch.zeros(()) for name, _ in layers_of(model)}
    images = dict.fromkeys(found, 0)

    def watched(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[name] = found[name] + 2 * _square(module, inputs[0])
            images[name] += len(inputs[0])

        return look

    with ExitStack() as stack:
        for name, module in layers_of(model):
            stack.callback(module.register_forward_pre_hook(watched(name)).remove)
        for batch in batches:
            feed(model.eval(), batch)
    return {name: each / images[name] for name, each in found.items()}


def _square(module: nn.Module, x: Tensor) -> Tensor:
    if isinstance(module, nn.Conv2d):
        x = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride).movedim(1, 2)  # type: ignore[arg-type]
    rows = x.flatten(0, -2)
    return rows.T @ rows


@torch.no_grad()
def rounded(quantizer: Quantizer, weight: Tensor, H: Tensor, bins: int, trade: float) -> tuple[np.ndarray, float]:
    """Whole numbers (out × n, int32) and their step; `trade` is λ."""
    matrix = weight.flatten(1)
    step = float(matrix.abs().max()) / (bins // 2)
    scaled, H = matrix / step, _damped(H) * step**2
    gamma = 1 / (math.log(2) * float(scaled.var()))
    robust = H + trade * gamma * torch.eye(len(H))
    moved = scaled @ H @ torch.inverse(robust)
    U = torch.linalg.cholesky(torch.inverse(_damped(robust)), upper=True)
    settings = {
        "max_idx": bins,
        "entropy_model": "regularized",
        "entropy_model_options": {"base_model": "deepcabac", "gamma": gamma},
        "scan_order_major": "row",
    }
    whole = quantizer(settings).run(moved.contiguous().numpy(), U.contiguous().numpy(), np.float32(trade))
    return np.asarray(whole, np.int32).reshape(matrix.shape), step


def _damped(H: Tensor) -> Tensor:
    found = H.clone()
    found.diagonal()[found.diagonal() == 0] = 1.0
    found.diagonal().add_(DAMPING * float(found.diagonal().mean()))
    return found

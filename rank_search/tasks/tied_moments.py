"""What is seen of a layer whose rows are looked up, too: both uses of its weight in one metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from rank_search.layers import Layer, times, weight_of
from rank_search.tasks.gradients import LayerMoments


def of_uses(seen: LayerMoments, model: nn.Module, layers: Mapping[str, Layer]) -> LayerMoments:
    """The moments by layer, those of layers with looked-up rows made from what was seen of the layer and of its ties.

    Symbols: W (tokens × n) is the weight, C the second moment of a head's inputs, f (tokens) how often each token is
    looked up, F the diagonal matrix of it. Both uses count each token as often as it occurs: the head by tr(F·D·C·Dᵀ)
    of an error D, as the Fisher information of its probabilities does on average, and the embedding by tr(F·D·Dᵀ), each
    relative to what it is for D = W. Their sum is tr(F·D·M·Dᵀ) with M = C/tr(F·W·C·Wᵀ) + I/tr(F·W·Wᵀ): M stands for the
    inputs' moment, and f, as a diagonal, for that of the gradients. Where the gradients are known themselves they stay,
    and C stays with them.
    """
    inputs = {name: each for name, each in seen.inputs.items() if name in layers}
    gradients = dict(seen.gradients)
    for name, layer in layers.items():
        often = [seen.inputs[tie.name] for tie in layer.ties if tie.name in seen.inputs]
        if not often or name not in inputs or name in gradients:
            continue
        W, f = (each.to(torch.float64) for each in (weight_of(model, name), torch.stack(often).mean(0)))
        C = inputs[name].to(W)
        head, rows = (float((times(W, moment) * W).sum(1) @ f.to(W)) for moment in (C, torch.ones(len(C)).to(C)))
        if head > 0 and rows > 0:
            M = C / head + torch.eye(len(C)).to(C) / rows
            inputs[name], gradients[name] = M.to(torch.float32), f.to(torch.float32)
    return replace(seen, inputs=inputs, gradients=gradients)

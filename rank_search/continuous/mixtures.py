"""Continuous ranks as mixtures of candidate ranks, coarse to fine: the method of Aghababaei-Harandi and Amini."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor, nn

from rank_search.errors import LayerError
from rank_search.layers import Axis, Factorization, Layer, axes_of, pool_names
from rank_search.options import Allocation, OptionTable, allocation_of, normalized
from rank_search.point import Choice, Point

GAMMA: Final = 0.4
BETA: Final = 0.8
FINER: Final = 10
"""What the step between candidates is divided by from one round to the next."""

WARM_UP: Final = 20
JOINT: Final = 100
RATE: Final = 1e-3
MOMENTUM: Final = 0.9
CLIP: Final = 5.0
"""Of the norm of all factors' gradients; without it those of CP grow beyond all bounds."""

LEAST_RANK_LOSS: Final = 1e-3
"""A product loses its pull on the ranks where a factor of it is zero."""

CANDIDATES: Final = 10
"""Of the first round, where the step is not said."""

_log: Final = logging.getLogger(__name__)


def mixture_ranks(table: OptionTable, factorization: str, *, step: int | None = None, rate: float = RATE) -> Allocation:
    """One rank for each layer by mixtures of candidate ranks, without data: as published, to be compared with.

    Aghababaei-Harandi and Amini, "Unified Framework for Neural Network Compression via Decomposition and Optimal Rank
    Selection" (2024, arXiv:2409.03555). Symbols: layer l has the candidates r ∈ R_l, none above its inputs or outputs,
    with logits α_l, p_l = softmax(α_l), and a form for each with its own factors, fitted at first; W̃_l = Σ_r
    p_lr·W_l^(r). L_R = γ·Σ_l (Σ_r p_lr·r / max R_l)^β, γ = `GAMMA`, β = `BETA`, and the loss is L_R·Σ_l ‖W_l − W̃_l‖².
    `WARM_UP` steps move the factors, then `JOINT` steps the factors and, after them, the logits; SGD with Nesterov's
    momentum. The likeliest candidate r stands for the interval [r − s/2, r + s/2], searched again at a step `FINER`
    times smaller, until the step is below 1. All axes of a form have the same rank, as far as it allows.

    L_R is kept from zero, gradients are clipped, and of candidates that are equally likely the highest is taken, with a
    warning. The result is one point: no cost can be asked for. Its ranks are fitted as those of any other, and a layer
    for which they save nothing stays dense. Complexity: for each layer the factors of all candidates of a round, and
    `WARM_UP` + 2·`JOINT` gradients of their weights.

    Args:
        table: as `options` makes it.
        factorization: that all layers which have it take; the others stay dense.
        step: between the candidates of the first round; default: for each layer a tenth of its largest rank.
        rate: the learning rate of factors and logits.

    Raises:
        LayerError: no layer of the table has that factorization, or the losses are not finite.

    >>> from rank_search.options import options
    >>> table = options(nn.Sequential(nn.Linear(16, 16)), example=torch.zeros(1, 16))
    >>> mixture_ranks(table, "svd").layers["0"].factorization in ("svd", "dense")
    True
    """
    plugin = table.fits.plugins.get(factorization)
    axes = {} if plugin is None else dict(_searched(table, factorization, plugin))
    if not axes:
        raise LayerError(
            f"No layer of the table has {factorization!r} with axes that are whole numbers and nothing shared, so "
            f"there are no candidate ranks. There are: {', '.join(table.factorizations)}."
        )
    highest = {layer: _highest(table.fits.layers[layer], each) for layer, each in axes.items()}
    steps = {layer: step or max(1, -(-each // CANDIDATES)) for layer, each in highest.items()}
    ranks = {layer: list(range(steps[layer], each + 1, steps[layer])) or [each] for layer, each in highest.items()}
    while True:
        found = _round(table, factorization, axes, ranks, rate)
        finer = {layer: each // FINER for layer, each in steps.items()}
        if not any(finer.values()):
            break
        ranks = {layer: _around(rank, steps[layer], finer[layer], highest[layer]) for layer, rank in found.items()}
        steps = finer
    choices = {layer: _choice(factorization, axes[layer], rank) for layer, rank in found.items()}
    choices = {layer: normalized(table.costs, layer, choice) for layer, choice in choices.items()}
    return allocation_of(table, table.describe(Point(choices)))


def _searched(
    table: OptionTable, factorization: str, plugin: type[Factorization]
) -> Iterator[tuple[str, tuple[Axis, ...]]]:
    """The layers that may take it, each with its axes."""
    for option in table:
        for layer, choice in option.choices.items():
            axes = axes_of(plugin, table.fits.layers[layer])
            is_alone = len(pool_names(table.fits.layers[layer], plugin)) == 1
            if choice.factorization == factorization and is_alone and all(axis.integer for axis in axes):
                yield layer, axes


def _highest(layer: Layer, axes: Sequence[Axis]) -> int:
    return int(min(layer.in_features, layer.out_features, max(axis.high for axis in axes)))


def _around(rank: int, step: int, finer: int, highest: int) -> list[int]:
    """The candidates of the next round; the rank alone where the step is 1 already."""
    if finer < 1:
        return [rank]
    return list(range(max(1, rank - step // 2), min(highest, rank + step // 2) + 1, finer))


def _choice(factorization: str, axes: Sequence[Axis], rank: int) -> Choice:
    values = {axis.name: int(min(max(rank, axis.low), axis.high)) for axis in axes}
    return Choice(factorization, values)


@final
@dataclass(frozen=True, eq=False)
class _Mixture:
    """The candidates of a layer: ranks, forms that are trained, and logits."""

    weight: Tensor
    ranks: Tensor
    forms: Sequence[Factorization]
    logits: nn.Parameter

    def share(self) -> Tensor:
        """Σ p·r / max R."""
        return torch.softmax(self.logits, 0) @ self.ranks / self.ranks.max()

    def error(self) -> Tensor:
        """‖W − Σ p·W^(r)‖²."""
        likely = torch.softmax(self.logits, 0)
        mixed = torch.stack([p * form.dense() for p, form in zip(likely, self.forms, strict=True)]).sum(0)
        return (self.weight - mixed).square().sum()


def _round(
    table: OptionTable,
    factorization: str,
    axes: Mapping[str, Sequence[Axis]],
    ranks: Mapping[str, Sequence[int]],
    rate: float,
) -> dict[str, int]:
    """The likeliest rank of each layer."""
    mixtures = {
        layer: _mixture(table, layer, [_choice(factorization, own, rank) for rank in ranks[layer]], ranks[layer])
        for layer, own in axes.items()
    }
    factors = [each for own in mixtures.values() for form in own.forms for each in form.parameters()]
    logits = [own.logits for own in mixtures.values()]
    moving = torch.optim.SGD(factors, rate, MOMENTUM, nesterov=True)
    choosing = torch.optim.SGD(logits, rate, MOMENTUM, nesterov=True)
    for step in range(WARM_UP + JOINT):
        _step(moving, mixtures, factors)
        if step >= WARM_UP:
            _step(choosing, mixtures, logits)
    return {layer: _likeliest(layer, own) for layer, own in mixtures.items()}


def _mixture(table: OptionTable, layer: str, choices: Sequence[Choice], ranks: Sequence[int]) -> _Mixture:
    weight = table.fits.weights(layer)
    forms = [table.fits.forms(layer, choice)[layer] for choice in choices]
    for form in forms:
        if form.bias is not None:
            form.bias = None
    return _Mixture(weight, torch.tensor(ranks).to(weight), forms, nn.Parameter(torch.zeros(len(ranks)).to(weight)))


def _step(optimizer: torch.optim.Optimizer, mixtures: Mapping[str, _Mixture], moved: Sequence[Tensor]) -> None:
    rank_loss = GAMMA * sum((own.share() ** BETA for own in mixtures.values()), start=torch.zeros(()))
    loss = sum((own.error() for own in mixtures.values()), start=torch.zeros(())) * rank_loss.clamp_min(LEAST_RANK_LOSS)
    if not bool(loss.isfinite()):
        raise LayerError(
            "The losses of the mixtures of ranks are not finite: the factors have grown beyond all bounds. Take a "
            "lower rate."
        )
    gradients = torch.autograd.grad(loss, list(moved))
    for parameter, gradient in zip(moved, gradients, strict=True):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(list(moved), CLIP)
    optimizer.step()


def _likeliest(layer: str, own: _Mixture) -> int:
    """Of equally likely ones the highest."""
    likely = own.logits.detach()
    best = (likely == likely.max()).nonzero().flatten()
    if len(best) > 1:
        _log.warning("Layer %s: %d candidate ranks are equally likely; the highest of them is taken.", layer, len(best))
    return int(own.ranks[best[-1]])

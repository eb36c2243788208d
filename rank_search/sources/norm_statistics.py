"""How far the statistics of a batch are from those that batch norms have stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, cast, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rank_search.basics import Float
from rank_search.layers import input_of

Statistics = Literal["kl", "l2"]

_TINY: Final = 1e-12


@final
@dataclass(frozen=True)
class NormInputs:
    """What batch norms are given in one forward.

    Attributes:
        norms: the norms that ran, in their order, once for each call.
        means, squares: of each call: of each example and channel, the mean over positions of the inputs and of their
            squares; examples × channels.
    """

    norms: list[_BatchNorm]
    means: list[Tensor]
    squares: list[Tensor]

    @classmethod
    def joined(cls, parts: Sequence[NormInputs]) -> Self:
        """Those of all examples of several forwards."""
        means = [torch.cat(each) for each in zip(*(part.means for part in parts), strict=True)]
        squares = [torch.cat(each) for each in zip(*(part.squares for part in parts), strict=True)]
        return cls(parts[0].norms, means, squares)

    def require_gradients(self) -> None:
        """Let gradients end at these numbers."""
        for each in (*self.means, *self.squares):
            each.requires_grad_()


def stored_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms with running statistics."""
    found = [each for each in model.modules() if isinstance(each, _BatchNorm)]
    return [each for each in found if each.running_mean is not None and each.running_var is not None]


@contextmanager
def norm_inputs(norms: Sequence[_BatchNorm]) -> Iterator[NormInputs]:
    """Watch the inputs of these norms; afterwards nothing is left of it."""
    seen = NormInputs([], [], [])

    def note(norm: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        x = input_of(inputs, named)
        flat = x.flatten(2) if x.dim() > 2 else x.unsqueeze(-1)
        flat = flat.to(torch.promote_types(x.dtype, torch.float32))
        seen.norms.append(cast(_BatchNorm, norm))
        seen.means.append(flat.mean(-1))
        seen.squares.append(flat.square().mean(-1))

    handles = [each.register_forward_pre_hook(note, with_kwargs=True) for each in norms]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def norms_distance(seen: NormInputs, kind: Statistics, slack: float, emphasis: float) -> Tensor:
    """Σ over the calls of norms of `statistics_distance`.

    With emphasis e, example i counts 1 + e in the statistics of call i modulo their number, and 1 in those of others.
    """
    total = torch.zeros((), device=seen.means[0].device)
    for place, (norm, means, squares) in enumerate(zip(seen.norms, seen.means, seen.squares, strict=True)):
        counts = torch.ones(len(means), 1, device=means.device)
        counts[place :: len(seen.norms)] += emphasis
        mean, square = ((counts * each).sum(0) / counts.sum() for each in (means, squares))
        stored, spread = (cast(Tensor, each).to(mean) for each in (norm.running_mean, norm.running_var))
        total = total + statistics_distance(mean, square - mean.square(), stored, spread, kind, slack)
    return total


def statistics_distance(
    mean: Float[Tensor, " channels"],
    variance: Float[Tensor, " channels"],
    stored_mean: Float[Tensor, " channels"],
    stored_variance: Float[Tensor, " channels"],
    kind: Statistics = "kl",
    slack: float = 0.0,
) -> Float[Tensor, ""]:
    """How far the mean and variance of a batch are from the stored ones, averaged over channels.

    Symbols: μ, σ of the batch and μ̂, σ̂ stored. kl is KL(N(μ̂, σ̂²) ‖ N(μ, σ²)) = ln(σ/σ̂) − ½·(1 − (σ̂² + (μ̂ − μ)²)/σ²),
    in nats (Haroush et al. 2020, eq. 4); l2 is (μ − μ̂)² + (σ − σ̂)² (Cai et al. 2020). With slack s, |μ − μ̂|/σ̂ and
    |ln(σ/σ̂)| are s less, at least 0 (after Zhang et al. 2021). Variances are at least 10⁻¹². Complexity: O(channels).

    >>> two, four = torch.tensor([2.0]), torch.tensor([4.0])
    >>> round(float(statistics_distance(two, four, torch.zeros(1), torch.ones(1))), 4)  # ln 2 − ½·(1 − (1 + 4)/4)
    0.8181
    >>> float(statistics_distance(two, four, torch.zeros(1), torch.ones(1), "l2"))  # 2² + (2 − 1)²
    5.0
    """
    deviation = stored_variance.clamp_min(_TINY).sqrt()
    off = _less((mean - stored_mean) / deviation, slack)
    ratio = _less(0.5 * (variance.clamp_min(_TINY) / stored_variance.clamp_min(_TINY)).log(), slack)
    if kind == "kl":
        return (ratio - 0.5 * (1 - (1 + off.square()) * (-2 * ratio).exp())).mean()
    return (deviation.square() * (off.square() + (ratio.exp() - 1).square())).mean()


def _less(values: Tensor, slack: float) -> Tensor:
    """Each so much nearer to zero."""
    return values.sign() * (values.abs() - slack).clamp_min(0) if slack else values

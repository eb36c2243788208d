"""The entropy penalty: weights are trained rounded to learned steps, and pay for their bits.

Oktay, Ballé, Singh, Shrivastava, "Scalable Model Compression by Entropy Penalized Reparameterization" (ICLR
2020), with one step and one Laplace prior for each tensor: the loss sees the rounded weights (gradients pass
straight through), the rate sees them with uniform noise in place of the rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from rank_search.errors import TrialError
from rank_search.layers import Factorization

_SMALLEST: Final = 1e-12
_LN2: Final = math.log(2)


def latents(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter that is rounded and coded: two or more dimensions, and stored if in a factorization."""
    kept_out = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, Factorization)
        for parameter in _not_stored(module)
    }
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() >= 2 and parameter.numel() and id(parameter) not in kept_out
    }


def _not_stored(module: Factorization) -> list[nn.Parameter]:
    stored = {id(tensor) for tensor in module.stored()}
    return [parameter for parameter in module.parameters() if id(parameter) not in stored]


def weight_count(model: nn.Module) -> int:
    """Scalars in parameters of two or more dimensions: what the entropy penalty of a model is divided by."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.dim() >= 2)


@final
class Quantizer(nn.Module):
    """A learned step and a learned prior scale for each latent tensor (at least one), both as logarithms.

    The first step of a tensor makes a Laplace distribution with its mean magnitude B cost `start_bits` per
    weight: its entropy is log2(2e·B/step), so step = 2e·B / 2^start_bits. Nothing is rounded away at the start
    unless start_bits is near 1. A tensor of zeros gets a tiny step.

    Raises:
        TrialError: a latent holds NaN or infinity.
    """

    phases: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], start_bits: float) -> None:
        super().__init__()
        self.names = tuple(tensors)
        ratio = 2 * math.e / 2**start_bits
        first = [math.log(_mean_magnitude(name, tensor) * ratio) for name, tensor in tensors.items()]
        device = next(iter(tensors.values())).device
        self.log_step = nn.Parameter(torch.tensor(first, device=device))
        self.log_scale = nn.Parameter(torch.full_like(self.log_step, -math.log(ratio)))
        self.sizes = [tensor.numel() for tensor in tensors.values()]
        self.register_buffer("phases", torch.rand(sum(self.sizes), device=device))

    def forward(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """The tensors rounded to whole steps, and the bits that they cost with noise in place of the rounding.

        Gradients of a rounded tensor qΔ, where q = round(w/Δ): 1 with respect to w (straight through), q − w/Δ
        with respect to Δ (Esser et al., "Learned Step Size Quantization", ICLR 2020). Those of the bits are the
        ordinary ones.
        """
        weights = [tensors[name] for name in self.names]
        flat = torch.cat([weight.flatten() for weight in weights])
        flat, bits = _CodeThrough.apply(flat, self.log_step, self.log_scale, self._noise(), self.sizes)  # type: ignore[no-untyped-call]
        parts = zip(self.names, weights, torch.split(flat, self.sizes), strict=True)
        return {name: part.view(weight.shape).to(weight.dtype) for name, weight, part in parts}, bits

    def _noise(self) -> Tensor:
        """Uniform in (−½, ½): fixed random phases turned by one new angle, far cheaper than new numbers."""
        turned = self.phases + torch.rand((), device=self.phases.device)
        return turned.frac_().sub_(0.5)

    def steps(self) -> dict[str, float]:
        """The step of each tensor, as the float32 number that is stored."""
        return dict(zip(self.names, self.log_step.detach().float().exp().tolist(), strict=True))

    @torch.no_grad()
    def round_(self, tensors: Mapping[str, Tensor]) -> None:
        """Round the tensors in place to multiples of their steps."""
        for name, step in self.steps().items():
            tensors[name].copy_(torch.round(tensors[name] / step) * step)


def _mean_magnitude(name: str, tensor: Tensor) -> float:
    spread = float(tensor.detach().double().abs().mean())
    if not math.isfinite(spread):
        raise TrialError(f"Weights are finite before they are rounded; {name} holds NaN or infinity.")
    return max(spread, _SMALLEST)


class _CodeThrough(torch.autograd.Function):
    """All weights, end to end in one vector, rounded to whole steps; and their bits. See `Quantizer.forward`."""

    @staticmethod
    def forward(
        ctx: Any, flat: Tensor, log_step: Tensor, log_scale: Tensor, noise: Tensor, sizes: list[int]
    ) -> tuple[Tensor, Tensor]:
        step, scale = _spread(log_step.exp(), sizes), _spread(log_scale.exp(), sizes)
        x = flat / step
        rounded = x.round().mul_(step)
        bits, by_x, by_scale = laplace_bits(noise.add_(x), scale)
        ctx.sizes = sizes
        ctx.save_for_backward(
            rounded - flat, by_x / step, _sums(x.mul_(by_x), sizes), _sums(by_scale.mul_(scale), sizes)
        )
        return rounded, bits.sum()

    @staticmethod
    def backward(ctx: Any, to_rounded: Tensor, to_bits: Tensor) -> tuple[Tensor | None, ...]:
        residue, bits_by_weight, bits_by_shrinking, bits_by_log_scale = ctx.saved_tensors
        to_weight = torch.addcmul(to_rounded, bits_by_weight, to_bits)
        to_log_step = _sums(to_rounded * residue, ctx.sizes) - to_bits * bits_by_shrinking
        return to_weight, to_log_step, to_bits * bits_by_log_scale, None, None


def _spread(numbers: Tensor, sizes: list[int]) -> Tensor:
    """Each number repeated as often as its tensor has elements (several times faster than indexing)."""
    return torch.cat([number.expand(size) for number, size in zip(numbers, sizes, strict=True)])


def _sums(flat: Tensor, sizes: list[int]) -> Tensor:
    return torch.stack([part.sum() for part in torch.split(flat, sizes)])


def laplace_bits(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """−log2 of a Laplace distribution's mass within ½ of each x, and its derivatives by x and by the scale.

    Symbols: mass p(x) = F(x+½) − F(x−½), F the distribution function of Laplace(0, b), b = `scale` > 0, one
    for each x. With z = min(|x|, ½), u = e^((z−½)/b), v = e^(−(z+½)/b) and m = 1 − (u+v)/2: −ln p(x) =
    (|x| − z)/b − ln m; by |x| it is g = (u − v)/(2bm); by b it is (1/(2bm) − 1/(2b) − z·g − (|x| − z)/b)/b.
    At whole numbers these are the bits of the number. No tail is too far and no b too small; in float32 b
    should stay below 10⁵ (17 bits a weight). NaN gives NaN. O(n).

    >>> float(laplace_bits(torch.tensor(0.0), torch.tensor(0.5 / math.log(2)))[0])
    1.0
    """
    inverse = scale.reciprocal()
    magnitude = x.abs()
    z = magnitude.clamp(max=0.5)
    u = (z - 0.5).mul_(inverse).exp_()
    v = (z + 0.5).mul_(inverse).neg_().exp_()
    mass = (u + v).mul_(-0.5).add_(1)
    half = inverse / mass
    slope = u.sub_(v).mul_(half).mul_(0.5)
    outside = magnitude.sub_(z).mul_(inverse)
    by_scale = half.sub_(inverse).mul_(0.5).addcmul_(z, slope, value=-1).sub_(outside).mul_(inverse)
    bits = outside.sub_(mass.log_())
    return bits.div_(_LN2), slope.copysign_(x).div_(_LN2), by_scale.div_(_LN2)

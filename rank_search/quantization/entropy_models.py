"""Priors of whole numbers while training: what a number costs, with derivatives, for many numbers at once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Final, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.basics import Float
from rank_search.quantization.settings import PriorKind

_LN2: Final = math.log(2)
_CHUNK: Final = 1 << 16  # numbers at a time, so that what is in between stays in the processor's cache
_CELLS: Final = 1024  # of the table from which the costs under a learned density are read
_WIDTHS: Final = (1, 3, 3, 1)  # of the small network that is the learned density
_LEAST: Final = 1e-9  # probability that no number goes below, as in Ballé's own code


class EntropyModel(nn.Module, ABC):
    """A distribution on the numbers of each group, with a mass for each number's interval x ± ½.

    Args:
        groups: how many.
        scale: of a Laplace distribution that all of them begin like.
    """

    @abstractmethod
    def costs(
        self, x: Float[Tensor, " n"], sizes: list[int]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " n"], tuple[Tensor, ...]]:
        """−log2 of the masses of all numbers, summed; its derivatives by each of them, and by the parameters.

        Args:
            x: the numbers, group after group, as many of each as `sizes` says; it may be overwritten.
        """

    @abstractmethod
    def bits(self, x: Float[Tensor, "groups numbers"]) -> Float[Tensor, "groups numbers"]:
        """−log2 of the mass of each number, groups × numbers. Only those of `Learned` have gradients."""


class _OneScale(EntropyModel):
    """A distribution that is known but for one scale for each group."""

    def __init__(self, groups: int, scale: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((groups,), math.log(scale)))

    @staticmethod
    @abstractmethod
    def formula(
        x: Float[Tensor, "*n"], scale: Float[Tensor, "*scales"]
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"], Float[Tensor, "*n"]]:
        """The bits, and their derivatives by x and by the scale."""

    def costs(
        self, x: Float[Tensor, " n"], sizes: list[int]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " n"], tuple[Tensor, ...]]:
        scales = self.log_scale.detach().exp()
        bits, by_scales = torch.zeros_like(scales), torch.zeros_like(scales)
        for place, group in enumerate(torch.split(x, sizes)):
            for part in torch.split(group, _CHUNK):
                cost, by_x, by_scale = self.formula(part, scales[place])
                bits[place] += cost.sum()
                by_scales[place] += by_scale.sum()
                part.copy_(by_x)
        return bits.sum(), x, (by_scales.mul_(scales),)

    def bits(self, x: Float[Tensor, "groups numbers"]) -> Float[Tensor, "groups numbers"]:
        return self.formula(x, self.log_scale.detach().exp()[:, None])[0]


@final
class Laplace(_OneScale):
    """Laplace(0, b); see `laplace_bits`."""

    @staticmethod
    def formula(
        x: Float[Tensor, "*n"], scale: Float[Tensor, "*scales"]
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"], Float[Tensor, "*n"]]:
        return laplace_bits(x, scale)


@final
class Logistic(_OneScale):
    """A logistic distribution around 0, see `logistic_bits`, at first with the Laplace distribution's variance."""

    def __init__(self, groups: int, scale: float) -> None:
        super().__init__(groups, scale * math.sqrt(6) / math.pi)

    @staticmethod
    def formula(
        x: Float[Tensor, "*n"], scale: Float[Tensor, "*scales"]
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"], Float[Tensor, "*n"]]:
        return logistic_bits(x, scale)


@final
class Learned(EntropyModel):
    """The deep factorized density: a small network that rises, as the logit of the distribution function.

    Formula: Ballé, Minnen, Singh, Hwang, Johnston, "Variational Image Compression with a Scale Hyperprior" (ICLR
    2018), appendix 6.1: F = sigmoid(g₃∘g₂∘g₁), gᵢ(z) = s(softplus(Hᵢ)·z + bᵢ), s(y) = y + tanh(aᵢ)·tanh(y), the last
    without s; widths 1, 3, 3, 1. It rises since softplus > 0 and |tanh a| < 1. The mass of x is F(x+½) − F(x−½),
    taken on the side where it does not cancel. It begins as a logistic distribution.
    """

    def __init__(self, groups: int, scale: float) -> None:
        super().__init__()
        layers = [*pairwise(_WIDTHS)]
        slope = (scale * math.sqrt(6) / math.pi) ** (-1 / len(layers))
        first = [torch.full((groups, wide, narrow), math.log(math.expm1(slope / wide))) for narrow, wide in layers]
        self.matrices = nn.ParameterList(first)
        self.shifts = nn.ParameterList([torch.rand(groups, wide, 1) - 0.5 for _, wide in layers])
        self.bends = nn.ParameterList([torch.zeros(groups, wide, 1) for _, wide in layers[:-1]])

    def logits(self, x: Float[Tensor, "groups numbers"]) -> Float[Tensor, "groups numbers"]:
        """Of the distribution functions at x."""
        z = x[:, None]  # groups × wide × numbers; wide is 1, 3, 3, 1
        for place, (matrix, shift) in enumerate(zip(self.matrices, self.shifts, strict=True)):
            z = torch.baddbmm(shift, F.softplus(matrix), z)
            if place < len(self.bends):
                z = z + torch.tanh(self.bends[place]) * torch.tanh(z)
        return z[:, 0]

    def bits(self, x: Float[Tensor, "groups numbers"]) -> Float[Tensor, "groups numbers"]:
        lower, upper = self.logits(x - 0.5), self.logits(x + 0.5)  # groups × numbers, and so are all below
        side = -torch.sign(lower + upper).detach()
        side = torch.where(side == 0, torch.ones_like(side), side)
        mass = (torch.sigmoid(side * upper) - torch.sigmoid(side * lower)).abs()
        return -torch.log2(mass.clamp_min(_LEAST))

    def costs(
        self, x: Float[Tensor, " n"], sizes: list[int]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " n"], tuple[Tensor, ...]]:
        """Read from a table over the range of each group, straight lines between its points: the network is run on
        a thousand points instead of on every weight.
        """
        groups = torch.split(x, sizes)
        furthest = torch.stack([group.abs().amax() for group in groups]).clamp_min_(1.0)[:, None]  # groups × 1
        points = furthest * torch.linspace(-1, 1, _CELLS + 1, device=x.device, dtype=x.dtype)  # groups × cells + 1
        parameters = tuple(self.parameters())
        with torch.enable_grad():
            table = self.bits(points)  # groups × cells + 1
            plain = table.detach()
            read = [_read(*each) for each in zip(groups, plain, (2 / _CELLS * furthest).unbind(), strict=True)]
            shares = torch.stack([share for share, _ in read])  # groups × cells + 1
            bits = (table * shares).sum()
            slopes = torch.autograd.grad(bits, parameters)
        return bits.detach(), torch.cat([slope for _, slope in read]), slopes


def _read(
    x: Float[Tensor, " n"], table: Float[Tensor, " points"], width: Float[Tensor, " 1"]
) -> tuple[Float[Tensor, " points"], Float[Tensor, " n"]]:
    """How much each point of a table around 0 counts for all x together, and the table's slope at each x."""
    place = (x / width).add_(_CELLS / 2).clamp_(0, _CELLS * (1 - 1e-6))
    cell = place.to(torch.int64)
    part = place.sub_(cell)  # of the way to the next point, n
    upper = torch.bincount(cell, part, _CELLS + 1)  # how much each point counts as the upper end of a cell
    shares = torch.bincount(cell, minlength=_CELLS + 1).to(upper.dtype).sub_(upper)
    shares[1:] += upper[:-1]
    return shares.to(table.dtype), ((table[1:] - table[:-1]) / width)[cell]


ENTROPY_MODELS: Final[dict[PriorKind, type[Laplace] | type[Logistic] | type[Learned]]] = {
    "laplace": Laplace,
    "logistic": Logistic,
    "density": Learned,
}


def spread(numbers: Float[Tensor, " groups"], sizes: list[int]) -> Float[Tensor, " n"]:
    """Each number repeated as often as its group has elements (several times faster than indexing).

    >>> spread(torch.tensor([1.0, 2.0]), [1, 3]).tolist()
    [1.0, 2.0, 2.0, 2.0]
    """
    return torch.cat([number.expand(size) for number, size in zip(numbers, sizes, strict=True)])


def sums(flat: Float[Tensor, " n"], sizes: list[int]) -> Float[Tensor, " groups"]:
    """The sum over each group.

    >>> sums(torch.tensor([1.0, 2.0, 3.0]), [1, 2]).tolist()
    [1.0, 5.0]
    """
    return torch.stack([part.sum() for part in torch.split(flat, sizes)])


def laplace_bits(
    x: Float[Tensor, "*n"], scale: Float[Tensor, "*scales"]
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"], Float[Tensor, "*n"]]:
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


def logistic_bits(
    x: Float[Tensor, "*n"], scale: Float[Tensor, "*scales"]
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """−log2 of a logistic distribution's mass within ½ of each x, and its derivatives by x and by the scale.

    Symbols: mass p(x) = σ((x+½)/s) − σ((x−½)/s), σ the logistic function, s = `scale` > 0. With y = |x|/s, c = 1/(2s),
    p = sinh c / (cosh y + cosh c) = (1 − e^(−2c))·e^(c − max(y, c)) / (A·B), A = 1 + e^(−y−c), B = 1 + e^(−|y−c|).
    Of −ln p the derivative by y is (T₊ + T₋)/2, that by c (T₊ − T₋)/2 − coth c, with T₊ = tanh((y+c)/2) = 2/A − 1 and
    T₋ = tanh((y−c)/2) = ±(2/B − 1). No tail is too far; NaN gives NaN. O(n).

    >>> round(float(logistic_bits(torch.tensor(0.0), torch.tensor(0.5 / math.log(3)))[0]), 5)
    1.0
    """
    inverse = scale.reciprocal()
    y, c = x.abs().mul_(inverse), inverse * 0.5
    small = torch.expm1(-2 * c).neg_()  # 1 − e^(−2c)
    beside = y - c
    outer, inner = (y + c).neg_().exp_().add_(1), beside.abs().neg_().exp_().add_(1)
    bits = (outer * inner).log_().add_(beside.clamp(min=0)).sub_(small.log())
    outer, inner = outer.reciprocal_().sub_(0.5), inner.reciprocal_().sub_(0.5).copysign_(beside)  # T₊/2, T₋/2
    by_y, by_c = outer + inner, outer.sub_(inner).sub_((2 - small) / small)
    by_scale = by_c.mul_(c).addcmul_(y, by_y).mul_(inverse).neg_()
    return bits.div_(_LN2), by_y.mul_(inverse / _LN2).copysign_(x), by_scale.div_(_LN2)

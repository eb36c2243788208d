"""The entropy penalty: weights are trained rounded to learned steps, and pay for their bits.

Oktay, Ballé, Singh, Shrivastava, "Scalable Model Compression by Entropy Penalized Reparameterization" (ICLR 2020): the
loss sees the rounded weights (gradients pass straight through), the rate sees them with uniform noise in place of the
rounding. Which tensors share a prior, and what has its own step, is in `quantization_specs`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from rank_search.basics import Float
from rank_search.coding import STEPS_PER_OCTAVE, Grid
from rank_search.errors import TrialError
from rank_search.quantization.entropy_models import ENTROPY_MODELS, EntropyModel, spread
from rank_search.quantization.quant_specs import QuantizationSpec, quantization_specs, to_frequencies
from rank_search.quantization.settings import CodingSettings

_SMALLEST: Final = 1e-12
_TURNS: Final = 1 << 12  # values of the noise that each weight sees
_FINER: Final = 2.0  # bits more for vectors: there are few of them, and each reaches every weight of its channel


@final
class Quantizer(nn.Module):
    """Learned steps and a learned prior for each group, for at least one latent tensor.

    The first step of a tensor makes a Laplace distribution with its mean magnitude B cost `start_bits` per weight (two
    more for vectors): its entropy is log2(2e·B/step), so step = 2e·B / 2^start_bits. Nothing is rounded away at the
    start unless start_bits is near 1. A tensor of zeros gets a tiny step. A tensor with many steps begins with all
    of them equal: that is right where all its weights matter alike.

    Args:
        tensors: by name.
        coding: grouping, steps and prior.
        modes: of a tensor's steps for `steps = "component"`, by name (see `component_modes`).

    Raises:
        TrialError: a latent holds NaN or infinity.
    """

    uniform: Tensor

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        start_bits: float,
        coding: CodingSettings | None = None,
        modes: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        coding = coding or CodingSettings()
        self.lattices = quantization_specs(tensors, coding, modes or {})
        logarithms, ratio = [], 2 * math.e / 2**start_bits
        for lattice in self.lattices:
            finer = 2.0**-_FINER if len(lattice.shape) < 2 else 1.0
            first = math.log(_mean_magnitude(lattice.name, tensors[lattice.name]) * ratio * finer)
            logarithms.append(torch.full((lattice.step_count,), first))
        device = next(iter(tensors.values())).device
        self.log_step = nn.Parameter(torch.cat(logarithms).to(device))
        self._groups = _group_sizes(self.lattices)
        self.prior = ENTROPY_MODELS[coding.prior](len(self._groups), 1 / ratio).to(device)
        self.register_buffer("uniform", torch.rand(sum(self._groups) + _TURNS, device=device) - 0.5)

    def forward(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Float[Tensor, ""]]:
        """The tensors rounded to whole steps, and the bits that they cost with noise in place of the rounding.

        Gradients of a rounded tensor qΔ, where q = round(w/Δ): 1 with respect to w (straight through), q − w/Δ
        with respect to Δ (Esser et al., "Learned Step Size Quantization", ICLR 2020). Those of the bits are the
        ordinary ones.
        """
        flat = torch.cat([self._flat(lattice, tensors[lattice.name]) for lattice in self.lattices])
        learned = (self.log_step, *self.prior.parameters())
        flat, bits = _CodeThrough.apply(flat, self._noise(), self.lattices, self.prior, *learned)  # type: ignore[no-untyped-call]
        parts = zip(self.lattices, torch.split(flat, [lattice.count for lattice in self.lattices]), strict=True)
        return {each.name: self._shaped(each, part).to(tensors[each.name].dtype) for each, part in parts}, bits

    @staticmethod
    def _flat(lattice: QuantizationSpec, tensor: Tensor) -> Tensor:
        return (to_frequencies(tensor) if lattice.frequencies else tensor).flatten()

    @staticmethod
    def _shaped(lattice: QuantizationSpec, flat: Tensor) -> Tensor:
        tensor = flat.view(lattice.shape)
        return to_frequencies(tensor, back=True) if lattice.frequencies else tensor

    def _noise(self) -> Float[Tensor, " n"]:
        """Uniform in (−½, ½): fixed random numbers from a new place on, far cheaper than new numbers."""
        place = int(torch.randint(_TURNS, ()))
        return self.uniform[place : place + sum(self._groups)]

    @torch.no_grad()
    def settle_steps_(self) -> None:
        """Put the steps to the nearest powers of 2^(1/8), and learn them no more: what is trained then will be stored.

        Weights that were trained rounded gather where rounding turns: with steps that are a few per cent different,
        many of them would turn over. Once done, doing it again changes nothing.
        """
        self.log_step.copy_(
            torch.round(self.log_step * (STEPS_PER_OCTAVE / math.log(2))) * (math.log(2) / STEPS_PER_OCTAVE)
        )
        self.log_step.requires_grad_(False)

    def grids(self) -> dict[str, Grid]:
        """The grid of each tensor: its steps, put to the nearest powers of 2^(1/8)."""
        return {
            lattice.name: Grid.nearest(step, lattice.frequencies, lattice.group)
            for lattice, step in zip(self.lattices, self._steps(), strict=True)
        }

    def exact(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """How many steps each number is, in float64, of the steps as they are learned.

        Those of the grids are a few per cent different as long as they have not been settled: rounded by them, numbers
        would turn over that training has rounded the other way.
        """
        return {
            name: grid.exact(tensors[name]) * (grid.steps() / step)
            for (name, grid), step in zip(self.grids().items(), self._steps(), strict=True)
        }

    @torch.no_grad()
    def round_(self, tensors: Mapping[str, Tensor]) -> dict[str, Grid]:
        """Round the tensors in place to their grids, which are returned."""
        grids = self.grids()
        for name, exact in self.exact(tensors).items():
            tensors[name].copy_(grids[name].values(exact.round(), tensors[name].dtype))
        return grids

    def _steps(self) -> list[Tensor]:
        """In float64, in the shapes of the specs."""
        steps = torch.split(self.log_step.detach().cpu().double().exp(), [each.step_count for each in self.lattices])
        return [step.view(lattice.steps) for lattice, step in zip(self.lattices, steps, strict=True)]

    @torch.no_grad()
    def bits(self, numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What each number costs under the learned priors, for tensors of the latents' shapes."""
        flat = torch.cat([numbers[lattice.name].flatten().to(self.log_step) for lattice in self.lattices])
        rows = nn.utils.rnn.pad_sequence(list(torch.split(flat, self._groups)), batch_first=True)  # groups × numbers
        costs = torch.cat([row[:size] for row, size in zip(self.prior.bits(rows), self._groups, strict=True)])
        parts = zip(self.lattices, torch.split(costs, [lattice.count for lattice in self.lattices]), strict=True)
        return {lattice.name: part.view(lattice.shape) for lattice, part in parts}


def _group_sizes(found: Sequence[QuantizationSpec]) -> list[int]:
    """Numbers in each group; specs of a group stand beside each other."""
    sizes: dict[str, int] = {}
    for lattice in found:
        sizes[lattice.group] = sizes.get(lattice.group, 0) + lattice.count
    return list(sizes.values())


def _mean_magnitude(name: str, tensor: Tensor) -> float:
    spread_of = float(tensor.detach().double().abs().mean())
    if not math.isfinite(spread_of):
        raise TrialError(f"{name} holds NaN or infinity; weights must be finite before they are rounded.")
    return max(spread_of, _SMALLEST)


class _CodeThrough(torch.autograd.Function):
    """All weights, end to end in one vector, rounded to whole steps; and their bits. See `Quantizer.forward`."""

    @staticmethod
    def forward(
        ctx: Any,
        flat: Tensor,
        noise: Tensor,
        quantization_specs: Sequence[QuantizationSpec],
        prior: EntropyModel,
        log_step: Tensor,
        *_learned: Tensor,
    ) -> tuple[Tensor, Tensor]:
        step = _spread_steps(log_step.exp(), quantization_specs)  # n, as flat and noise
        x = flat / step
        rounded = x.round().mul_(step)
        bits, by_x, by_prior = prior.costs(noise + x, _group_sizes(quantization_specs))
        ctx.lattices, ctx.priors = quantization_specs, len(by_prior)
        ctx.save_for_backward(rounded - flat, by_x / step, _step_sums(x.mul_(by_x), quantization_specs), *by_prior)
        return rounded, bits

    @staticmethod
    def backward(ctx: Any, to_rounded: Tensor, to_bits: Tensor) -> tuple[Tensor | None, ...]:
        residue, bits_by_weight, bits_by_shrinking, *by_prior = ctx.saved_tensors
        to_weight = torch.addcmul(to_rounded, bits_by_weight, to_bits)
        to_log_step = _step_sums(to_rounded * residue, ctx.lattices) - to_bits * bits_by_shrinking
        return to_weight, None, None, None, to_log_step, *(to_bits * each for each in by_prior)


def _spread_steps(steps: Float[Tensor, " steps"], found: Sequence[QuantizationSpec]) -> Float[Tensor, " n"]:
    """The step of each number."""
    if len(steps) == len(found):
        return spread(steps, [lattice.count for lattice in found])
    parts = zip(found, torch.split(steps, [lattice.step_count for lattice in found]), strict=True)
    return torch.cat([part.view(lattice.steps).expand(lattice.shape).reshape(-1) for lattice, part in parts])


def _step_sums(flat: Float[Tensor, " n"], found: Sequence[QuantizationSpec]) -> Float[Tensor, " steps"]:
    """The sum over the numbers of each step."""
    parts = zip(found, torch.split(flat, [lattice.count for lattice in found]), strict=True)
    return torch.cat([part.view(lattice.shape).sum_to_size(lattice.steps).reshape(-1) for lattice, part in parts])

"""Where the values of a coded tensor may lie: whole numbers times steps, by pixels or by frequencies of a kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rank_search.basics import Float
from rank_search.errors import TrialError

STEPS_PER_OCTAVE: Final = 8
"""Steps are whole powers of 2^(1/8), so that each takes a small whole number to store."""

_FINE: Final = 2.0**30  # cosines are rounded to it: no two mathematics libraries agree on the last bit

POWERS: Final = (
    *(1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096),
    *(1.4142135623730951, 1.5422108254079407, 1.681792830507429, 1.8340080864093424),
)
"""2^(k/8) for k < 8, written out: no two mathematics libraries need agree on the last bit."""


@dataclass(frozen=True)
class Grid:
    """The multiples of steps that a tensor is rounded to.

    Attributes:
        exponents: whole numbers k, int32: the step is 2^(k/8). As many dimensions as the tensor, each of size 1 or
            the tensor's: all of size 1 is one step for the tensor, one of them larger is a step for each channel or
            component along that mode. With `frequencies`, the last two are those of the kernel.
        frequencies: whether the whole numbers are those of the kernel's spatial frequencies (see `harmonics`) in the
            last two modes, and not those of its pixels.
        group: tensors of the same group share one prior.
    """

    exponents: Tensor
    frequencies: bool = False
    group: str = ""

    @classmethod
    def nearest(cls, steps: Tensor, frequencies: bool = False, group: str = "") -> Grid:
        """The grid whose steps are closest to these, as ratios.

        Raises:
            TrialError: a step is not a positive number.
        """
        logarithms = torch.log2(steps.detach().cpu().double())
        if not bool(logarithms.isfinite().all()):
            raise TrialError(
                "A step is zero, negative, NaN or infinite; steps must be positive. Lower the learning rate."
            )
        return cls(torch.round(STEPS_PER_OCTAVE * logarithms).to(torch.int32), frequencies, group)

    def part(self, places: Sequence[Tensor]) -> Grid:
        """The grid of what is left of the tensor at some places of each of its modes.

        With frequencies the last two modes are to be left whole.

        >>> Grid(torch.tensor([[-8, 0, 8]])).part([torch.arange(5), torch.tensor([0, 2])]).exponents.tolist()
        [[-8, 8]]
        """
        left = self.exponents
        for mode, kept in enumerate(places):
            left = left.index_select(mode, kept) if len(kept) < left.shape[mode] else left
        return replace(self, exponents=left)

    def steps(self) -> Tensor:
        """The steps in float64, the same on every machine."""
        found = [
            math.ldexp(POWERS[k % STEPS_PER_OCTAVE], k // STEPS_PER_OCTAVE) for k in self.exponents.flatten().tolist()
        ]
        return torch.tensor(found, dtype=torch.float64).reshape(self.exponents.shape)

    def round(self, tensor: Tensor) -> Tensor:
        """The nearest whole numbers, in float64: they may be too large for the coder, or not finite."""
        return torch.round(self.exact(tensor))

    def exact(self, tensor: Tensor) -> Tensor:
        """How many steps each value is, in float64, not rounded."""
        values = tensor.detach().cpu().double()
        return (transformed(values) if self.frequencies else values) / self.steps()

    def slopes(self, gradient: Tensor) -> Tensor:
        """The gradient along the whole numbers from that along the tensor's values, in float64."""
        values = gradient.detach().cpu().double()
        return (transformed(values) if self.frequencies else values) * self.steps()

    def values(self, whole: Tensor, dtype: torch.dtype) -> Tensor:
        """The tensor that whole numbers stand for; computed in float64 one operation after another, rounded once."""
        scaled = whole.double() * self.steps()
        return (transformed(scaled, back=True) if self.frequencies else scaled).to(dtype)


@cache
def harmonics(size: int) -> Float[NDArray[np.float64], "{size} {size}"]:
    """The real orthonormal discrete Fourier basis of `size` points, a row for each frequency.

    Row 0 is 1/√n; rows 2f − 1 and 2f are √(2/n)·cos(2πfx/n) and √(2/n)·sin(2πfx/n) for f < n/2; for even n the last is
    cos(πx)/√n. The kernels of Oktay et al. 2020 (section 4) are coded in such a basis, written there with complex
    numbers; this form has exactly n coefficients.

    >>> bool(np.allclose(harmonics(3) @ harmonics(3).T, np.eye(3)))
    True
    """
    place = np.arange(size)
    rows = [np.full(size, 1 / math.sqrt(size))]
    for frequency in range(1, (size - 1) // 2 + 1):
        angle = 2 * np.pi * frequency * place / size
        rows += [math.sqrt(2 / size) * np.cos(angle), math.sqrt(2 / size) * np.sin(angle)]
    if size > 1 and size % 2 == 0:
        rows.append(np.cos(np.pi * place) / math.sqrt(size))
    return np.asarray(np.round(np.stack(rows) * _FINE) / _FINE)


def transformed(tensor: Float[Tensor, "*modes kh kw"], back: bool = False) -> Float[Tensor, "*modes kh kw"]:
    """The frequencies of the last two modes of a tensor, or back from them; gradients flow through.

    The sums are written out, product after product, so that a file decodes to the same weights on every machine.

    >>> constant = torch.ones(1, 1, 2, 2)
    >>> transformed(constant).round(decimals=6).flatten().tolist()
    [2.0, 0.0, 0.0, 0.0]
    >>> bool(torch.allclose(transformed(transformed(constant), back=True), constant))
    True
    """
    for mode in (-2, -1):
        basis = torch.from_numpy(harmonics(tensor.shape[mode])).to(tensor)
        parts = tensor.unbind(mode)
        rows = basis.T if back else basis
        sums = [_sum_of_products(row, parts) for row in rows]
        tensor = torch.stack(sums, mode)
    return tensor


def _sum_of_products(row: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
    total = row[0] * parts[0]
    for factor, part in zip(row[1:], parts[1:], strict=True):
        total = total + factor * part
    return total

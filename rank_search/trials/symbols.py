"""Integers to a range-coded stream and back, each tensor under its own Laplace or tabulated prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import constriction
import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int32]

LARGEST: Final = (1 << 15) - 1
"""Largest magnitude that is coded: a tensor that needs more steps is kept as it is."""


@dataclass(frozen=True)
class Prior:
    """A distribution over the integers low … high: Laplace(0, scale) in bins of one, cut off at both ends.

    The encoder and the decoder both evaluate it with numpy in float64 from the stored float32 scale.
    """

    low: int
    high: int
    scale: float

    @classmethod
    def of(cls, symbols: Integers) -> Prior:
        """The most likely prior of these symbols (at least one)."""
        return cls(int(symbols.min()), int(symbols.max()), float(np.float32(laplace_scale(symbols))))

    @property
    def is_certain(self) -> bool:
        """Only one symbol is possible, so that nothing has to be coded."""
        return self.low == self.high

    def probabilities(self) -> NDArray[np.float64]:
        """One for each symbol, not normalized; 0 is safe (the coder never gives a symbol less than 2⁻²⁴)."""
        magnitude = np.abs(np.arange(self.low, self.high + 1, dtype=np.float64))
        y = 0.5 / self.scale
        # e^(-|k|/b)·sinh(y), with the tail measured from its first bin so that no exponential overflows.
        tail = 0.5 * np.exp(-(magnitude - 0.5) / self.scale) * -np.expm1(-2 * y)
        mass: NDArray[np.float64] = np.where(magnitude == 0, -np.expm1(-y), tail)
        nearest = int(magnitude.min())
        return mass if mass.sum() > 0 else np.exp(-(magnitude - nearest) / self.scale)


def laplace_scale(symbols: Integers) -> float:
    """The Laplace scale b under which rounded values k are most likely, in closed form.

    Symbols: n values, n₀ of them zero, S = Σ|k|, t = e^(−1/(2b)). With P(0) = 1 − t and
    P(k) = t^(2|k|)·(1/t − t)/2, the derivative of the likelihood vanishes where
    (n/2 + S)·t² + (n₀/2)·t + (n − n₀)/2 − S = 0, which has one root in [0, 1). All zero: t = 0, and b is
    reported as a small positive number. O(n).
    """
    magnitude = np.abs(symbols.astype(np.float64))
    n, zeros, total = magnitude.size, float((magnitude == 0).sum()), float(magnitude.sum())
    square, linear, constant = n / 2 + total, zeros / 2, (n - zeros) / 2 - total
    t = (-linear + math.sqrt(linear**2 - 4 * square * constant)) / (2 * square)
    return -0.5 / math.log(t) if t > 0 else 1e-2


class SymbolWriter:
    """One range-coded stream for all tensors of a model (each stream costs at least 32 bits)."""

    def __init__(self) -> None:
        self._coder: Any = constriction.stream.queue.RangeEncoder()

    def write(self, symbols: Integers, prior: Prior) -> None:
        if not prior.is_certain:
            self._coder.encode((symbols - prior.low).astype(np.int32), _model(prior))

    def finish(self) -> bytes:
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())


class SymbolReader:
    """Reads what `SymbolWriter` wrote, given the same priors in the same order."""

    def __init__(self, stream: bytes) -> None:
        words = np.frombuffer(stream, dtype="<u4").astype(np.uint32)
        self._coder: Any = constriction.stream.queue.RangeDecoder(words)

    def read(self, count: int, prior: Prior) -> Integers:
        if prior.is_certain:
            return np.full(count, prior.low, dtype=np.int32)
        decoded: Integers = self._coder.decode(_model(prior), count)
        return (decoded + prior.low).astype(np.int32)


def _model(prior: Prior) -> Any:
    return constriction.stream.model.Categorical(prior.probabilities(), perfect=False)

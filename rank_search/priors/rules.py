"""Rank priors beside VBMF: each a small function of a spectrum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from rank_search.priors.spectrum import Spectrum
from rank_search.priors.vbmf import vbmf

Rule = Callable[[Spectrum, float], int]
"""The rank that a spectrum asks for, at a level that belongs to the rule."""


def vbmf_rank(spectrum: Spectrum, level: float = 0.0) -> int:
    """What stands out of the noise: see `vbmf`. It has no level.

    >>> vbmf_rank(Spectrum(np.array([10, 5, 1, 0.9]), rows=4, columns=10))
    2
    """
    return vbmf(spectrum).rank


def tail_rank(spectrum: Spectrum, level: float) -> int:
    """The least rank whose relative tail √(Σ_{i>r} g_i² / Σ g_i²) is at most `level`, 0 to 1.

    The relative error of the best approximation of that rank, the same for every layer. A zero matrix has rank 0, level
    0 gives the full rank, level 1 gives 0; NaN is no level. O(L).

    >>> tail_rank(Spectrum(np.array([3.0, 2.0, 1.0]), 3, 5), 0.3)
    2
    """
    squares = spectrum.values**2
    if squares.sum() == 0:
        return 0
    tails = np.sqrt(np.append(np.cumsum(squares[::-1])[::-1], 0.0) / squares.sum())
    return int(np.argmax(tails <= level))


def energy_rank(spectrum: Spectrum, level: float) -> int:
    """The least rank that keeps the share `level` of the energy Σ g², 0 to 1: `tail_rank` at √(1 − level).

    >>> energy_rank(Spectrum(np.array([3.0, 2.0, 1.0]), 3, 5), 0.9)
    2
    """
    return tail_rank(spectrum, float(np.sqrt(1.0 - level)))


RULES: Final[Mapping[str, Rule]] = {"vbmf": vbmf_rank, "tail": tail_rank, "energy": energy_rank}
LEVELS: Final[Mapping[str, float]] = {"vbmf": 0.0, "tail": 0.4, "energy": 0.84}
"""The level of each rule where none is given."""

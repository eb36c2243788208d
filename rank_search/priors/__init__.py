"""What the weights say: spectra, VBMF rank priors, the weakening coordinate, and the cache of bases."""

from rank_search.priors.axes import AxisPrior, axis_priors
from rank_search.priors.cache import CachedBases, SpectraCache
from rank_search.priors.numbers import KeptNumbers
from rank_search.priors.rate import (
    Coding,
    best_for_bits,
    best_for_distortion,
    coded_bits,
    coded_distortion,
    component_steps,
)
from rank_search.priors.rules import energy_rank, tail_rank, vbmf_rank
from rank_search.priors.settings import PriorSettings
from rank_search.priors.spectrum import Spectrum
from rank_search.priors.vbmf import RankPrior, vbmf
from rank_search.priors.weakening import value_at, weakening_of

__all__ = [
    "AxisPrior",
    "CachedBases",
    "Coding",
    "KeptNumbers",
    "PriorSettings",
    "RankPrior",
    "SpectraCache",
    "Spectrum",
    "axis_priors",
    "best_for_bits",
    "best_for_distortion",
    "coded_bits",
    "coded_distortion",
    "component_steps",
    "energy_rank",
    "tail_rank",
    "value_at",
    "vbmf",
    "vbmf_rank",
    "weakening_of",
]

"""What the weights say: spectra, VBMF rank priors, the weakening coordinate, and the cache of bases."""

from rank_search.priors.axes import AxisPrior, axis_priors
from rank_search.priors.cache import CachedBases, SpectraCache
from rank_search.priors.spectrum import Spectrum
from rank_search.priors.vbmf import RankPrior, vbmf
from rank_search.priors.weakening import value_at, weakening_of

__all__ = [
    "AxisPrior",
    "CachedBases",
    "RankPrior",
    "SpectraCache",
    "Spectrum",
    "axis_priors",
    "value_at",
    "vbmf",
    "weakening_of",
]

"""What the weights say: spectra, VBMF rank priors, the weakening coordinate, and the cache of bases."""

from __future__ import annotations

from rank_search.priors.axes import AxisPrior, axis_priors
from rank_search.priors.cache import CachedBases, SpectraCache
from rank_search.priors.kept_numbers import KeptNumbers
from rank_search.priors.settings import AT_LEAST, ENOUGH, PriorSettings
from rank_search.priors.tensor_files import KeptTensors, TensorFiles, digest, numbers_of, user_cache_folder
from rank_search.priors.weakening import value_at

__all__ = [
    "AT_LEAST",
    "ENOUGH",
    "AxisPrior",
    "CachedBases",
    "KeptNumbers",
    "KeptTensors",
    "PriorSettings",
    "SpectraCache",
    "TensorFiles",
    "axis_priors",
    "digest",
    "numbers_of",
    "user_cache_folder",
    "value_at",
]

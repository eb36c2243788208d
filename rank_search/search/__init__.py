"""Where to look next: the search space, seed points, and the sampler."""

from __future__ import annotations

from rank_search.search.auto_searcher import AutoSearcher
from rank_search.search.build import build_space
from rank_search.search.constraints import COUNTED, check, check_counted, require_possible, upper_limits
from rank_search.search.coordinate_system import Weakenings
from rank_search.search.coordinates import coordinates
from rank_search.search.expected import at_the_bad_end
from rank_search.search.kept_dense import kept_dense
from rank_search.search.kept_shares import KeptShares
from rank_search.search.optuna_searcher import OptunaSearcher
from rank_search.search.rungs import Rungs, require_rungs_fit
from rank_search.search.samplers import AUTO, BOLACO, CONTINUOUS, TPE
from rank_search.search.searcher import Searcher
from rank_search.search.seeds import Seed, seed_points
from rank_search.search.settings import KEPT, PYTHON, SearchSettings
from rank_search.search.source import FixedPoints, SearchTrial, Source
from rank_search.search.space import Space
from rank_search.search.strength import Strength

__all__ = [
    "AUTO",
    "BOLACO",
    "CONTINUOUS",
    "COUNTED",
    "KEPT",
    "PYTHON",
    "TPE",
    "AutoSearcher",
    "FixedPoints",
    "KeptShares",
    "OptunaSearcher",
    "Rungs",
    "SearchSettings",
    "SearchTrial",
    "Searcher",
    "Seed",
    "Source",
    "Space",
    "Strength",
    "Weakenings",
    "at_the_bad_end",
    "build_space",
    "check",
    "check_counted",
    "coordinates",
    "kept_dense",
    "require_possible",
    "require_rungs_fit",
    "seed_points",
    "upper_limits",
]

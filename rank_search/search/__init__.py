"""Where to look next: the search space, seed points, and the sampler."""

from rank_search.search.build import build_space
from rank_search.search.coding import coordinates, decode, encode
from rank_search.search.constraints import COUNTED, check, check_counted, require_possible, violations
from rank_search.search.costs import CostModel
from rank_search.search.rungs import Rungs, RungSettings, require_rungs_fit
from rank_search.search.samplers import SAMPLERS
from rank_search.search.searcher import Past, Searcher, Suggestion
from rank_search.search.seeds import Seed, seed_points
from rank_search.search.settings import SearchSettings, SeedPointSettings, SeedSettings
from rank_search.search.space import AxisRange, Group, Space
from rank_search.search.strength import Strength

__all__ = [
    "COUNTED",
    "SAMPLERS",
    "AxisRange",
    "CostModel",
    "Group",
    "Past",
    "RungSettings",
    "Rungs",
    "SearchSettings",
    "Searcher",
    "Seed",
    "SeedPointSettings",
    "SeedSettings",
    "Space",
    "Strength",
    "Suggestion",
    "build_space",
    "check",
    "check_counted",
    "coordinates",
    "decode",
    "encode",
    "require_possible",
    "require_rungs_fit",
    "seed_points",
    "violations",
]

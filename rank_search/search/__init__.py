"""Where to look next: the search space, seed points, and the sampler."""

from rank_search.search.allocation import Allocation, lagrangian_front
from rank_search.search.auto import Auto
from rank_search.search.box import Box, box_of
from rank_search.search.build import build_space
from rank_search.search.constraints import COUNTED, check, check_counted, require_possible, violations
from rank_search.search.coordinates import coordinates, coordinates_of, point_at
from rank_search.search.costs import CostModel
from rank_search.search.expected import at_the_bad_end
from rank_search.search.fits import Fits
from rank_search.search.forms import Forms
from rank_search.search.options import Option, Options
from rank_search.search.rungs import Rungs, RungSettings, require_rungs_fit
from rank_search.search.samplers import SAMPLERS
from rank_search.search.searcher import Past, Searcher, Suggestion
from rank_search.search.seeds import Seed, seed_points
from rank_search.search.settings import SearchSettings, SeedPointSettings, SeedSettings
from rank_search.search.source import Given, GivenPoint, Source
from rank_search.search.space import AxisRange, Group, Space
from rank_search.search.strength import Strength
from rank_search.search.timing import measure_forms

__all__ = [
    "COUNTED",
    "SAMPLERS",
    "Allocation",
    "Auto",
    "AxisRange",
    "Box",
    "CostModel",
    "Fits",
    "Forms",
    "Given",
    "GivenPoint",
    "Group",
    "Option",
    "Options",
    "Past",
    "RungSettings",
    "Rungs",
    "SearchSettings",
    "Searcher",
    "Seed",
    "SeedPointSettings",
    "SeedSettings",
    "Source",
    "Space",
    "Strength",
    "Suggestion",
    "at_the_bad_end",
    "box_of",
    "build_space",
    "check",
    "check_counted",
    "coordinates",
    "coordinates_of",
    "lagrangian_front",
    "measure_forms",
    "point_at",
    "require_possible",
    "require_rungs_fit",
    "seed_points",
    "violations",
]

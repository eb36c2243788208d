"""Step 7 of the data path: what each layer may become, with its cost and its error; how a cost is allocated.

The room is a function, too: `rank_search.options(model, batches, example=x)`, see `options` in
`rank_search.options.of_model`.
"""

from __future__ import annotations

from rank_search.basics import make_callable
from rank_search.options.allocate import Allocation, allocate, allocation_of
from rank_search.options.allocation import (
    HullPoint,
    by_gain,
    cost_shares,
    lower_hull,
    mean_shares,
    minds_costs,
    price_of,
    spread,
    sweep,
)
from rank_search.options.allocation import Shares as CostShares
from rank_search.options.arrays import Array, OptionArrays, Places
from rank_search.options.cost_model import CostModel, judged_costs, normalized
from rank_search.options.cuts import CutMeasure, calibrated
from rank_search.options.fits import error_between, relative_error
from rank_search.options.fitted import factorize
from rank_search.options.form_speeds import Forms
from rank_search.options.form_timing import measure_forms
from rank_search.options.grouping import build_groups, possible_groups
from rank_search.options.in_order import factorize_in_order
from rank_search.options.knapsack import pick
from rank_search.options.of_model import fits_of, measured_table, options, stored_bits
from rank_search.options.ranges import AxisRange, Group
from rank_search.options.table import Option, OptionTable

__all__ = [
    "Allocation",
    "Array",
    "AxisRange",
    "CostModel",
    "CostShares",
    "CutMeasure",
    "Forms",
    "Group",
    "HullPoint",
    "Option",
    "OptionArrays",
    "OptionTable",
    "Places",
    "allocate",
    "allocation_of",
    "build_groups",
    "by_gain",
    "calibrated",
    "cost_shares",
    "error_between",
    "factorize",
    "factorize_in_order",
    "fits_of",
    "judged_costs",
    "lower_hull",
    "mean_shares",
    "measure_forms",
    "measured_table",
    "minds_costs",
    "normalized",
    "options",
    "pick",
    "possible_groups",
    "price_of",
    "relative_error",
    "spread",
    "stored_bits",
    "sweep",
]

make_callable(__name__, "of_model", "options")

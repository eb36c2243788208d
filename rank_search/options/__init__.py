"""Step 7 of the data path: what each layer may become, with its cost and its error; how a cost is allocated."""

from __future__ import annotations

from rank_search.options.allocation import Allocation, cost_shares, lagrangian_front, mean_shares, price_of, spread
from rank_search.options.arrays import Array, OptionArrays, Places
from rank_search.options.cost_model import CostModel, normalized
from rank_search.options.fits import Fits
from rank_search.options.form_speeds import Forms
from rank_search.options.form_timing import measure_forms
from rank_search.options.ranges import AxisRange, Group
from rank_search.options.table import Option, OptionTable

__all__ = [
    "Allocation",
    "Array",
    "AxisRange",
    "CostModel",
    "Fits",
    "Forms",
    "Group",
    "Option",
    "OptionArrays",
    "OptionTable",
    "Places",
    "cost_shares",
    "lagrangian_front",
    "mean_shares",
    "measure_forms",
    "normalized",
    "price_of",
    "spread",
]

"""Dominance, fronts and hypervolumes, by numbers alone."""

from __future__ import annotations

from rank_search.pareto.dominance import dominates, hypervolume, nondominated
from rank_search.pareto.reference_box import box_of

__all__ = [
    "box_of",
    "dominates",
    "hypervolume",
    "nondominated",
]

"""Dominance, fronts, the box that hypervolumes are a share of, and what is made of them: by numbers alone.

numpy and moocore are imported by the functions that need them: reading a front needs neither, and stays quick.
"""

from __future__ import annotations

from rank_search.pareto.convergence import Convergence, convergence
from rank_search.pareto.dominance import dominates, nondominated, ranks
from rank_search.pareto.knee import closest, knee
from rank_search.pareto.panels import Panel, panels
from rank_search.pareto.reference_box import ReferenceBox

__all__ = [
    "Convergence",
    "Panel",
    "ReferenceBox",
    "closest",
    "convergence",
    "dominates",
    "knee",
    "nondominated",
    "panels",
    "ranks",
]

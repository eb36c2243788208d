"""Continuous ranks: those of all layers at once, moved by gradients, and rounded in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rank_search.basics import lazy_door

if TYPE_CHECKING:
    from rank_search.continuous.masks import STEPS, RoundedRanks
    from rank_search.continuous.mixtures import mixture_ranks
    from rank_search.continuous.ranks import LOOKED_AT, continuous_front, continuous_ranks, mask_search, spread_costs
    from rank_search.continuous.teacher import Distance, Teacher

_HOMES: Final = {
    "LOOKED_AT": "ranks",
    "STEPS": "masks",
    "Distance": "teacher",
    "RoundedRanks": "masks",
    "Teacher": "teacher",
    "continuous_front": "ranks",
    "continuous_ranks": "ranks",
    "mask_search": "ranks",
    "mixture_ranks": "mixtures",
    "spread_costs": "ranks",
}

__all__ = [
    "LOOKED_AT",
    "STEPS",
    "Distance",
    "RoundedRanks",
    "Teacher",
    "continuous_front",
    "continuous_ranks",
    "mask_search",
    "mixture_ranks",
    "spread_costs",
]

__getattr__ = lazy_door(__name__, _HOMES)

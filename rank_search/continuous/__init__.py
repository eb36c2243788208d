"""Continuous ranks: those of all layers at once, moved by gradients, and rounded in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rank_search.basics import lazy_door

if TYPE_CHECKING:
    from rank_search.continuous.importances import (
        COSTS,
        IMPORTANCE_STEPS,
        learn_importances,
        mean_importance,
        middle_costs,
        with_importances,
    )
    from rank_search.continuous.masks import STEPS, MaskSearch, RoundedRanks
    from rank_search.continuous.mixtures import mixture_ranks
    from rank_search.continuous.ranks import (
        LOOKED_AT,
        continuous_front,
        continuous_ranks,
        mask_search,
        memory_of,
        spread_costs,
    )
    from rank_search.continuous.teacher import Distance, Teacher

_HOMES: Final = {
    "COSTS": "importances",
    "IMPORTANCE_STEPS": "importances",
    "LOOKED_AT": "ranks",
    "STEPS": "masks",
    "Distance": "teacher",
    "MaskSearch": "masks",
    "RoundedRanks": "masks",
    "Teacher": "teacher",
    "continuous_front": "ranks",
    "continuous_ranks": "ranks",
    "learn_importances": "importances",
    "mask_search": "ranks",
    "mean_importance": "importances",
    "memory_of": "ranks",
    "middle_costs": "importances",
    "mixture_ranks": "mixtures",
    "spread_costs": "ranks",
    "with_importances": "importances",
}

__all__ = [
    "COSTS",
    "IMPORTANCE_STEPS",
    "LOOKED_AT",
    "STEPS",
    "Distance",
    "MaskSearch",
    "RoundedRanks",
    "Teacher",
    "continuous_front",
    "continuous_ranks",
    "learn_importances",
    "mask_search",
    "mean_importance",
    "memory_of",
    "middle_costs",
    "mixture_ranks",
    "spread_costs",
    "with_importances",
]

__getattr__ = lazy_door(__name__, _HOMES)

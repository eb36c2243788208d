"""What a dense model is expected to measure: a trained one does not stand at the bad end of its metric's range."""

from __future__ import annotations

from typing import Final

from rank_search.basics import COSTS, is_higher_better, is_lower_better, is_rate
from rank_search.point import Objective

_UNSURE: Final = 0.5
_SURE: Final = 0.9


def at_the_bad_end(objective: Objective, dense: float) -> str:
    """A warning where what the dense model measures looks like a wrong direction, or a model without its weights.

    Only within 0 to 1, where a range is known. A name that says nothing is suspicious beyond the middle; one that
    agrees with its direction only near the very end, and only a rate.

    >>> at_the_bad_end(Objective("score"), 0.93)[:58]
    'score of the dense model is 0.93, near the worst from 0 to'
    >>> at_the_bad_end(Objective("error"), 0.3), at_the_bad_end(Objective("loss"), 0.95)
    ('', '')
    """
    name, minimized = objective.name, objective.direction == "minimize"
    if name in COSTS or not 0 <= dense <= 1:
        return ""
    badness = dense if minimized else 1 - dense
    agrees = is_lower_better(name) if minimized else is_higher_better(name)
    if badness <= (_SURE if agrees else _UNSURE) or (agrees and not is_rate(name)):
        return ""
    other = "maximize" if minimized else "minimize"
    if agrees:
        advice = "Is the model trained, and are its weights loaded?"
    else:
        line = f'{{name = "{name}", direction = "{other}"}}'
        advice = f"If the other end is the good one, write {line} in [search] objectives."
    worst = f"near the worst from 0 to 1, for it is {objective.direction}d"
    return f"{name} of the dense model is {dense:.4g}, {worst}. {advice}"

"""Which choices of the study file's own seed points are tried as dense, because they save nothing."""

from __future__ import annotations

from collections.abc import Iterator

from rank_search.options import CostModel
from rank_search.point import Choice
from rank_search.search.seeds import named_choices
from rank_search.search.settings import SearchSettings
from rank_search.search.space import Space


def kept_dense(space: Space, costs: CostModel, settings: SearchSettings) -> Iterator[str]:
    """A sentence for each layer of a seed point that is not what the point says, with the cost that is the reason.

    Raises:
        StudyFileError: a point of the study file does not fit the space.
    """
    for point in settings.seeds.points:
        for layer, choice in named_choices(space, point).items():
            if not choice.is_dense and not costs.saves(layer, choice):
                yield (
                    f"In seed point {point.name!r}, layer {layer!r} stays dense: {_written(choice)} "
                    f"{_reason(costs, layer, choice)}. A form is tried where it costs less than its layer: of what "
                    "objectives and constraints ask for, one less and none more. Choose a smaller one, or ask for what "
                    "it saves."
                )


def _written(choice: Choice) -> str:
    return " ".join([choice.factorization, *(f"{axis} {value:g}" for axis, value in choice.values.items())])


def _reason(costs: CostModel, layer: str, choice: Choice) -> str:
    judged = costs.judged(layer, choice).items()
    counts = " and ".join(f"{chosen:,.0f} {cost} (dense {dense:,.0f})" for cost, (chosen, dense) in judged)
    ratio = costs.time_ratio(layer, choice)
    return f"costs {counts}" + ("" if ratio is None else f", and takes {ratio:.2f} times as long as the layer")

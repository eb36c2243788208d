"""Which sizes a model takes that is written as it is, not as a graph: tried, not traced."""

from __future__ import annotations

from torch import Tensor, nn

from rank_search.export.arguments import Arguments
from rank_search.export.tracing import Place, resized
from rank_search.layers import in_evaluation
from rank_search.programs import BATCH, Sizes


def free_sizes(model: nn.Module, arguments: Arguments, asked: set[Place]) -> Sizes:
    """The batch, and all dimensions of whole numbers (ids, masks), as far as the model runs with other sizes of them.

    Args:
        asked: further dimensions that are to be free.
    """
    batch, words = set(_batch(arguments.tensors)), set(_words(arguments.tensors))
    ways = (batch | words | asked, batch | asked, words | asked)
    free = next((each for each in ways if _runs(model, arguments, each)), asked)
    shapes = tuple(
        tuple(
            size if (place, dimension) not in free else _called(arguments.names[place], dimension, batch & free)
            for dimension, size in enumerate(each.shape)
        )
        for place, each in enumerate(arguments.tensors)
    )
    return Sizes(arguments.names, shapes, {})


def _called(name: str, dimension: int, batch: set[Place]) -> str:
    return BATCH if dimension == 0 and batch else f"{name}.{dimension}"


def _batch(tensors: tuple[Tensor, ...]) -> list[Place]:
    first = next((each.shape[0] for each in tensors if each.dim()), None)
    return [(place, 0) for place, each in enumerate(tensors) if each.dim() and each.shape[0] == first]


def _words(tensors: tuple[Tensor, ...]) -> list[Place]:
    whole = [(place, each) for place, each in enumerate(tensors) if not each.is_floating_point()]
    return [(place, dimension) for place, each in whole for dimension in range(1, each.dim())]


def _runs(model: nn.Module, arguments: Arguments, free: set[Place]) -> bool:
    """Whether the model takes each of these dimensions one larger, or one smaller."""
    return any(_takes(model, arguments, free, step) for step in (1, -1))


def _takes(model: nn.Module, arguments: Arguments, free: set[Place], step: int) -> bool:
    sizes = {place: max(1, arguments.tensors[place[0]].shape[place[1]] + step) for place in free}
    try:
        with in_evaluation(model):
            arguments.call(resized(arguments.tensors, sizes)).on(model)
    except Exception:  # noqa: BLE001 - for any reason: then these sizes stay as they are
        return False
    return True

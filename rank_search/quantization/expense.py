"""What packing a wide layer takes, said before it is taken."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Final

from rank_search.layers import Layer
from rank_search.quantization.observed import columns_of, size_of
from rank_search.quantization.rounding import PASSES

_WIDE: Final = 2048  # inputs of a layer that is worth a word
_PRODUCTS: Final = 8e9  # multiply-adds in a second, of one core in float64: a rough figure
_CHOICES: Final = 1.5e7  # whole numbers that are chosen in a second
_GIB: Final = 2**30

_log = logging.getLogger(__name__)


def seconds_for(layer: Layer) -> float:
    """About how long a layer takes on one core, beside the forwards; right within a factor of three or so.

    Symbols: out × n the weight, b inputs in a block. Decompositions take about 2·b³ multiply-adds for each block,
    rounding in two passes about 9·out·n·b, and each weight is chosen in each.
    """
    out, size = layer.out_features, size_of(layer)
    width: int = max(each.stop - each.start for each in columns_of(size))
    products: float = 2.0 * size * width**2 + 9.0 * out * size * width
    return products / _PRODUCTS + PASSES * 2 * out * size / _CHOICES


def bytes_for(layer: Layer) -> float:
    """About how much memory a layer takes beside the model: covariances, pivots their workspace, its weights."""
    out, size = layer.out_features, size_of(layer)
    blocks = [each.stop - each.start for each in columns_of(size)]
    numbers: int = 3 * sum(each**2 for each in blocks) + 4 * max(blocks) ** 2 + 5 * out * size
    return 8.0 * numbers


def say_expense(layers: Iterable[Layer]) -> None:
    """A line for each wide layer."""
    for layer in layers:
        size = size_of(layer)
        if size >= _WIDE:
            count = len(columns_of(size))
            _log.warning(
                "Layer %r has %s inputs: rounding it takes about %s and %.1f GiB of memory%s.",
                layer.name,
                f"{size:,}",
                _duration(seconds_for(layer)),
                bytes_for(layer) / _GIB,
                "" if count == 1 else f"; their covariance is taken in {count} blocks, to fit",
            )


def _duration(seconds: float) -> str:
    return f"{math.ceil(seconds)} s" if seconds < 90 else f"{math.ceil(seconds / 60)} min"

"""In how many passes over the batches the moments of all layers are made, so that they fit into memory."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, final

import torch

from rank_search.layers import Layer, weight_of
from rank_search.priors import AT_LEAST, ENOUGH
from rank_search.study import Problem
from rank_search.tasks import MOST_OUTPUTS, LayerErrorTask, columns_seen

MOST_BATCHES: Final = 256
"""That are looked at, where the data decides on their number."""

_SHARE: Final = 0.5
"""Of the memory that is free, for moments."""


@final
@dataclass(frozen=True)
class MomentPasses:
    """Which layers' moments are made in each pass.

    Attributes:
        parts: layers by name, for each pass; in the order of the model.
        largest: bytes that the moments of a pass take, at most.
        total: bytes that they take for all layers at once.
        kept: bytes of all that a search keeps of the layers: moments, weights and their bases.
        bound: bytes that there are for them.
    """

    parts: tuple[Mapping[str, Layer], ...]
    largest: int
    total: int
    kept: int
    bound: int

    @classmethod
    def of(cls, layers: Mapping[str, Layer], bound: int, with_gradients: bool = False) -> Self:
        """Consecutive layers are put together as long as they keep the bound; one that breaks it alone has its pass."""
        parts: list[dict[str, Layer]] = [{}]
        sums = [0]
        for name, layer in layers.items():
            size = _summed(layer, with_gradients)
            if parts[-1] and sums[-1] + size > bound:
                parts.append({})
                sums.append(0)
            parts[-1][name] = layer
            sums[-1] += size
        kept = sum(_kept(layer, with_gradients) for layer in layers.values())
        return cls(tuple(parts), max(sums), sum(sums), kept, bound)

    @property
    def is_mapped(self) -> bool:
        """Whether what is kept lies in files."""
        return len(self.parts) > 1 or self.kept > self.bound

    def said(self, batches: int) -> str:
        """The plan in words."""
        if not self.is_mapped:
            return f"their moments take {_in_words(self.total)}, in one pass over {_counted(batches)}"
        over = "" if self.largest <= self.bound else ", which the largest layer breaks"
        passes = "one pass" if len(self.parts) == 1 else f"{len(self.parts)} passes"
        return (
            f"moments of all layers take {_in_words(self.total)}, with their bases {_in_words(self.kept)}; there are "
            f"{_in_words(self.bound)} for them ([priors] memory{over}), so they are made in {passes} over "
            f"{_counted(batches)}, {_in_words(self.largest)} at a time, and kept in files"
        )


def moment_passes(problem: Problem, layers: Mapping[str, Layer]) -> MomentPasses:
    """As the study file says, or as much memory as is free."""
    settings = problem.study.priors
    device = weight_of(problem.model, next(iter(layers))).device
    bound = int(_SHARE * _free(device)) if settings.memory_bytes is None else settings.memory_bytes
    return MomentPasses.of(layers, bound, settings.metric == "loss")


def calibration_batches(problem: Problem) -> int:
    """As many as the study file says; where it leaves that to the data, as many as its widest layer takes;
    none of a task without inputs.

    Raises:
        TaskError: the task raises, or has no training data.
    """
    if isinstance(problem.task, LayerErrorTask):
        return 0
    asked = problem.study.priors.calibration
    layers = calibrated_layers(problem)
    if asked != "auto" or not layers:
        return 0 if asked == "auto" else asked
    dense = {name: layer for name, layer in layers.items() if not layer.one_hot}  # of a table a few rows are enough
    seen = columns_seen(problem.task, problem.opened, dense, AT_LEAST, problem.study.study.seed)
    wanted = [math.ceil(AT_LEAST * ENOUGH * _inputs(layers[name]) / count) for name, count in seen.items() if count]
    return min(MOST_BATCHES, max([AT_LEAST, *wanted]))


def calibrated_layers(problem: Problem) -> dict[str, Layer]:
    """Those that something may be chosen for."""
    return {name: layer for name, layer in problem.inventory.layers.items() if problem.choices[name]}


def _inputs(layer: Layer) -> int:
    """The size of what one output is made of."""
    return layer.shape[1] * math.prod(layer.kernel)


def _numbers(layer: Layer) -> int:
    """In the second moment of its inputs: of one-hot ones the diagonal, of grouped ones a block for each group."""
    return _inputs(layer) if layer.one_hot else layer.groups * _inputs(layer) ** 2


def _outputs(layer: Layer, with_gradients: bool) -> int:
    """In the second moment of the gradients at its outputs."""
    return layer.out_features**2 if with_gradients and layer.out_features <= MOST_OUTPUTS else 0


def _summed(layer: Layer, with_gradients: bool) -> int:
    """Bytes of sums in float64, with a product or a result in float32 beside each."""
    return 12 * (_numbers(layer) + _outputs(layer, with_gradients))


def _kept(layer: Layer, with_gradients: bool) -> int:
    """Bytes of the moment, of a copy of the weight, and of the bases of the weight and of the outputs."""
    rows, columns = layer.out_features, _inputs(layer)
    moments = _numbers(layer) + _outputs(layer, with_gradients)
    others = rows * columns + 2 * min(rows, columns) * (rows + columns)
    return 4 * moments + layer.dtype.itemsize * others


def _free(device: torch.device) -> int:
    """Bytes of memory that nobody uses, on that device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(_of_system() or whole, _of_container() or whole)


def _of_system() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), None)


def _of_container() -> int | None:
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used))


def _counted(batches: int) -> str:
    return "a batch" if batches == 1 else f"{batches} batches"


def _in_words(count: int) -> str:
    """Bytes, to two digits.

    >>> _in_words(1_740_000_000)
    '1.7 GB'
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{count / size:.2g} {unit}"
    return f"{max(1, round(count / 1e6))} MB"

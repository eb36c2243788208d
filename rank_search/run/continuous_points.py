"""Continuous ranks of a study, found in the driver before its first trial, and kept beside the spectra."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from rank_search.continuous import STEPS, RoundedRanks, continuous_front, mixture_ranks, spread_costs
from rank_search.errors import LayerError, StudyFileError
from rank_search.options import OptionTable
from rank_search.point import Point
from rank_search.priors import TensorFiles
from rank_search.run.seen_outputs import SeenOutputs
from rank_search.study import Problem

_steps: Final = logging.getLogger("rank_search.steps")


def continuous_points(
    problem: Problem, table: OptionTable, count: int, batches: int, folder: Path
) -> tuple[Point, ...]:
    """Points of continuous ranks at so many costs, or one for each factorization if mixtures are asked for.

    Args:
        batches: of the training data that calibration looks at.
        folder: where what has been found is kept.

    Raises:
        StudyFileError: no batch is looked at, or no factorization has candidate ranks.
        TaskError: the model does not run on the batches.
    """
    if count < 1:
        return ()
    options = problem.study.search.options
    if options.get("mixtures"):
        return _mixtures(table)
    if not batches:
        raise StudyFileError(
            "Continuous ranks are moved by the network's outputs on calibration batches, and [priors] calibration is "
            '0. Set it to "auto" or to some batches, or leave continuous ranks out of [search].'
        )
    seen = SeenOutputs.of(problem, table, batches, int(options.get("steps", STEPS)))
    return _Front(table, count, seen).kept(TensorFiles(folder))


def _mixtures(table: OptionTable) -> tuple[Point, ...]:
    found = []
    for name in table.factorizations:
        _steps.info("Looking for mixtures of ranks of %s", name)
        try:
            found.append(mixture_ranks(table, name).point)
        except LayerError as error:
            _steps.info("None of %s: %s", name, error)
    if not found:
        raise StudyFileError(
            "None of the factorizations of [layers] has mixtures of candidate ranks, which [search] options asks for: "
            f"{', '.join(table.factorizations)}. Take others, or leave mixtures out."
        )
    return tuple(found)


class _Front:
    """Continuous ranks at several costs."""

    def __init__(self, table: OptionTable, count: int, seen: SeenOutputs) -> None:
        self._table, self._seen = table, seen
        self._costs = spread_costs(table, seen.shares, count, seen.most)

    def kept(self, files: TensorFiles) -> tuple[Point, ...]:
        """As they were found before for the same weights, options and batches, or found now."""
        name = f"continuous-2-{self._seen.key(self._costs)}"
        stored = files.load(name)
        places = self._found() if stored is None else stored["places"]
        if stored is None:
            files.save(name, {"places": places})
        return tuple(self._point(row) for row in places.tolist())

    def _found(self) -> torch.Tensor:
        """The place of each group's option: a row for each point."""
        _steps.info("Moving continuous ranks at %d costs", len(self._costs))
        front = continuous_front(self._seen.search(), self._costs, _say)
        rows = [
            [options.index(option) for options, option in zip(self._table.of.values(), each.chosen, strict=True)]
            for each in front
        ]
        return torch.tensor(rows, dtype=torch.int64).view(len(rows), len(self._table.of))

    def _point(self, places: Sequence[int]) -> Point:
        chosen = self._table.chosen(places)
        return Point({layer: choice for option in chosen for layer, choice in option.choices.items()})


def _say(done: int, count: int, found: RoundedRanks) -> None:
    _steps.info("Continuous ranks, %d of %d: cost %.1f%%, distance %.3g", done, count, 100 * found.cost, found.distance)

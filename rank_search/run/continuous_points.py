"""Continuous ranks of a study, found in the driver before its first trial, and kept beside the spectra."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from rank_search.continuous import (
    LOOKED_AT,
    STEPS,
    Distance,
    RoundedRanks,
    Teacher,
    continuous_front,
    mask_search,
    mixture_ranks,
    spread_costs,
)
from rank_search.errors import LayerError, StudyFileError
from rank_search.layers import Example, forward, in_evaluation, tensors_of
from rank_search.options import CostShares, OptionTable, mean_shares
from rank_search.point import Point
from rank_search.priors import TensorFiles, digest
from rank_search.run.kept_statistics import training_settings
from rank_search.search import upper_limits
from rank_search.study import Problem
from rank_search.tasks import Batch, Task, checked_batches, compares_classes, logits_of, seeded, task_errors

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
    front = _Front(problem, table, count, _looked_at(problem, batches), int(options.get("steps", STEPS)))
    return front.kept(TensorFiles(folder))


def _looked_at(problem: Problem, batches: int) -> list[Batch]:
    task, most = problem.task, min(batches, LOOKED_AT)
    with seeded(problem.study.study.seed), task_errors("training()"):
        return list(islice(checked_batches(task.training(), "training data"), most))


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

    def __init__(self, problem: Problem, table: OptionTable, count: int, batches: Sequence[Batch], steps: int) -> None:
        task = problem.task
        self._problem, self._table, self._steps = problem, table, steps
        self._inputs = [task.inputs(batch) for batch in batches]
        self._distance = _distance(task, problem.model, self._inputs[0])
        self._norms = training_settings(problem).norm_batches != 0
        self._shares = mean_shares([each.name for each in problem.study.search.objectives])
        self._costs = spread_costs(table, self._shares, count, self._most(self._shares))

    def kept(self, files: TensorFiles) -> tuple[Point, ...]:
        """As they were found before for the same weights, options and batches, or found now."""
        name = f"continuous-2-{self._key()}"
        stored = files.load(name)
        places = self._found() if stored is None else stored["places"]
        if stored is None:
            files.save(name, {"places": places})
        return tuple(self._point(row) for row in places.tolist())

    def _found(self) -> torch.Tensor:
        """The place of each group's option: a row for each point."""
        _steps.info("Moving continuous ranks at %d costs", len(self._costs))
        model = self._problem.model
        teacher = Teacher.of(model, self._inputs, self._distance)
        search = mask_search(model, self._table, self._shares, teacher, self._norms, self._steps)
        front = continuous_front(search, self._costs, _say)
        rows = [
            [options.index(option) for options, option in zip(self._table.of.values(), each.chosen, strict=True)]
            for each in front
        ]
        return torch.tensor(rows, dtype=torch.int64).view(len(rows), len(self._table.of))

    def _point(self, places: Sequence[int]) -> Point:
        chosen = self._table.chosen(places)
        return Point({layer: choice for option in chosen for layer, choice in option.choices.items()})

    def _most(self, shares: CostShares) -> float:
        """The highest cost that bounds allow, where they are on what is weighed alone."""
        limits = upper_limits(self._problem.study.search.constraints, self._table.dense)
        return min([1.0, *(limits[name] / self._table.dense[name] for name in limits if shares[name] == 1)])

    def _key(self) -> str:
        """Of all that they depend on."""
        model = self._problem.model
        weights = digest(dict(model.state_dict()))
        seen = digest(
            {f"{n} {k}": each for n, one in enumerate(self._inputs) for k, each in enumerate(tensors_of(one))}
        )
        about: list[Any] = [str(model), self._distance, self._costs, dict(self._shares), self._norms, self._steps]
        about += [option.to_json() for option in self._table]
        return hashlib.sha256(weights + seen + repr(about).encode()).hexdigest()


def _distance(task: Task, model: nn.Module, inputs: Example) -> Distance:
    """How the model's outputs are compared."""
    with torch.no_grad(), in_evaluation(model):
        outputs = logits_of(forward(model, inputs))
    return "kl" if compares_classes(task, outputs) else "squared"


def _say(done: int, count: int, found: RoundedRanks) -> None:
    _steps.info("Continuous ranks, %d of %d: cost %.1f%%, distance %.3g", done, count, 100 * found.cost, found.distance)

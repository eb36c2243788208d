"""What continuous ranks and importances look at: the dense network's outputs on batches of the training data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self, final

import torch
from torch import nn

from rank_search.continuous import LOOKED_AT, Distance, MaskSearch, Teacher, mask_search
from rank_search.layers import Example, forward, in_evaluation, tensors_of
from rank_search.options import CostShares, OptionTable, mean_shares
from rank_search.priors import digest
from rank_search.run.kept_statistics import training_settings
from rank_search.search import upper_limits
from rank_search.study import Problem
from rank_search.tasks import Task, checked_batches, compares_classes, logits_of, seeded, task_errors


@final
@dataclass(frozen=True, eq=False)
class SeenOutputs:
    """Inputs of a study's task, and how the outputs on them are compared.

    Attributes:
        inputs: one for each batch.
        distance: how the network's outputs are compared with the dense model's.
        norms: whether batch norms take their statistics again.
        shares: of which costs the study's objectives are.
        steps: of the optimizer, at one cost.
    """

    problem: Problem
    table: OptionTable
    inputs: Sequence[Example]
    distance: Distance
    norms: bool
    shares: CostShares
    steps: int

    @classmethod
    def of(cls, problem: Problem, table: OptionTable, batches: int, steps: int) -> Self:
        """The first of so many training batches, `LOOKED_AT` at most.

        Raises:
            TaskError: the task has no training data, or the model does not run on it.
        """
        task, study = problem.task, problem.study
        with seeded(study.study.seed), task_errors("training()"):
            seen = list(islice(checked_batches(task.training(), "training data"), min(batches, LOOKED_AT)))
        inputs = [task.inputs(batch) for batch in seen]
        norms = training_settings(problem).norm_batches != 0
        shares = mean_shares([each.name for each in study.search.objectives])
        return cls(problem, table, inputs, _distance(task, problem.model, inputs[0]), norms, shares, steps)

    @property
    def most(self) -> float:
        """The highest cost that bounds allow, where they are on what is weighed alone."""
        limits = upper_limits(self.problem.study.search.constraints, self.table.dense)
        return min([1.0, *(limits[name] / self.table.dense[name] for name in limits if self.shares[name] == 1)])

    def search(self) -> MaskSearch:
        teacher = Teacher.of(self.problem.model, self.inputs, self.distance)
        return mask_search(self.problem.model, self.table, self.shares, teacher, self.norms, self.steps)

    def key(self, costs: Sequence[float]) -> str:
        """Of all that what is found at these costs depends on."""
        model = self.problem.model
        weights = digest(dict(model.state_dict()))
        seen = digest({f"{n} {k}": each for n, one in enumerate(self.inputs) for k, each in enumerate(tensors_of(one))})
        about: list[Any] = [str(model), self.distance, list(costs), dict(self.shares), self.norms, self.steps]
        about += [option.to_json() for option in self.table]
        return hashlib.sha256(weights + seen + repr(about).encode()).hexdigest()


def _distance(task: Task, model: nn.Module, inputs: Example) -> Distance:
    """How the model's outputs are compared."""
    with torch.no_grad(), in_evaluation(model):
        outputs = logits_of(forward(model, inputs))
    return "kl" if compares_classes(task, outputs) else "squared"

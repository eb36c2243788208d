"""A task's model within bounds on its cost: allocated from its option table, fitted, measured; no search, no store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from rank_search.export import Deployable, measured, write_model
from rank_search.layers import copied_to, count_params, mean_macs
from rank_search.options import Allocation, OptionTable, allocate, build_groups, factorize, factorize_in_order
from rank_search.quantization import reestimate_batchnorm
from rank_search.run.kept_importances import with_learned_importances
from rank_search.run.kept_statistics import check_data, training_settings
from rank_search.run.moment_passes import calibration_batches
from rank_search.run.preparation import begin, layer_bases, layer_moments, option_table, sequential_pass
from rank_search.study import Problem, Study, cache_folder
from rank_search.tasks import Seen, Task, seeded, task_errors

Bounds = Mapping[str, float | int | str]
"""The most that a cost may be, by `params`, `macs` or `bits`: as in `allocate`."""


@final
@dataclass(frozen=True)
class AllocatedModel:
    """A model whose layers were chosen within bounds.

    Attributes:
        model: in evaluation mode, on the CPU.
        dense, measurements: of the dense model and of this one: params and macs, and what the task measures on its
            selection data, if that was asked for.
        seen: what the selection data gave the model's forward; nothing if it was not measured.
    """

    problem: Problem
    allocation: Allocation
    model: nn.Module
    dense: Mapping[str, float]
    measurements: Mapping[str, float]
    seen: Seen

    def write(
        self, folder: Path, format: str = "safetensors", *, dynamic: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """Write it into a new folder as `export_trial` does, without coded bytes; returns the manifest.

        Raises:
            ExportError: as `export_trial`; nothing is left then.
        """
        about = {
            "study": self.problem.study.name,
            "measurements": dict(self.measurements),
            "dense": dict(self.dense),
            **self.allocation.point.to_json(),
        }
        source = Deployable(self.model, self.problem.task, self.seen, about)
        return write_model(source, folder, format, dynamic=dynamic)


def allocate_model(study: Study, bounds: Bounds, task: Task | None = None, *, measure: bool = True) -> AllocatedModel:
    """The model of least Σ error of its layers' outputs within the bounds.

    Layers, factorizations, ties, priors and rounding are those of the study file; its trials, objectives, constraints,
    sampler and epochs play no part: forms are judged by the bounded costs. Batch norms take their statistics again, as
    in a trial. With `method = "overparameterized"` the network is trained first, as in a search.

    Args:
        measure: whether both models are measured on the selection data.

    Raises:
        LayerError: nothing can be factorized, or no allocation keeps the bounds.
        QueryError: a bound is no amount.
        TaskError, PluginError: the task or a factorization cannot be used.
    """
    problem = begin(study, task)
    problem.inventory.require_layers()
    check_data(problem)
    groups = build_groups(problem.inventory.layers, problem.plugins, problem.groups, problem.choices)
    batches = calibration_batches(problem)
    table = option_table(problem, groups, layer_bases(problem, layer_moments(problem, batches)), batches, bounds)
    if batches and study.priors.importances != "auto":
        table = with_learned_importances(problem, table, study.priors.importances, cache_folder(study))
    allocation = allocate(table, params=bounds.get("params"), macs=bounds.get("macs"), bits=bounds.get("bits"))
    model = _fitted(problem, allocation, table, batches)
    with seeded(study.study.seed), task_errors("training() or loss()"):
        reestimate_batchnorm(problem.task, model, training_settings(problem).norm_batches)
    found, seen = measured(problem.task, model) if measure else ({}, Seen())
    dense = measured(problem.task, problem.original)[0] if measure else {}
    dense, found = dense | _counted(problem, problem.original), found | _counted(problem, model)
    return AllocatedModel(problem.on_cpu(), allocation, copied_to(model, torch.device("cpu")), dense, found, seen)


def _fitted(problem: Problem, allocation: Allocation, table: OptionTable, batches: int) -> nn.Module:
    """As a trial's model is before it is trained."""
    if (passed := sequential_pass(problem, batches)) is None:
        return factorize(problem.model, allocation, table)
    fits = table.fits
    return factorize_in_order(problem.model, allocation.point, fits.layers, fits.plugins, fits.bases, passed)


def _counted(problem: Problem, model: nn.Module) -> dict[str, float]:
    return {"params": float(count_params(model)), "macs": float(mean_macs(model, problem.examples))}

"""Compress a model that is already in memory, without a study file and without a class to write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from rank_search.errors import StudyFileError
from rank_search.export import build_model, export_trial
from rank_search.layers import Example
from rank_search.observe import SearchProgress
from rank_search.run.runner import run_study
from rank_search.store import Front, Store
from rank_search.study import IN_PYTHON, Study, complaints
from rank_search.tasks import Batch, Supervised, Task, error_rate

Table = Mapping[str, Any]


@dataclass(frozen=True)
class Compressed:
    """What `compress` found.

    Attributes:
        front: the members of the Pareto front, best first by the first objective.
        store, name: where it is kept: `rank-search front STORE NAME` shows the same.
        dense: the measurements of the model as it was.
    """

    front: Front
    store: str = field(repr=False)  # it may hold a password
    name: str
    dense: Mapping[str, float]
    task: Task

    def model(self, trial: int) -> nn.Module:
        """The model of a front member, in evaluation mode."""
        with Store.open(self.store) as store:
            return build_model(store, self.name, trial, self.task)

    def export(
        self, trial: int, folder: str | Path, format: str = "safetensors", *, dynamic: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """Write the model of a front member into a new folder, verified; returns its manifest.

        Args:
            dynamic: dimensions that are to take several sizes, as in `export_trial`.
        """
        with Store.open(self.store) as store:
            return export_trial(store, self.name, trial, Path(folder), format, self.task, dynamic=dynamic)


def compress(
    model: nn.Module,
    *,
    train: Iterable[Batch],
    selection: Iterable[Batch],
    test: Iterable[Batch] | None = None,
    metric: Callable[[Tensor, Tensor], float] = error_rate,
    metric_name: str = "error",
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    example: Example | None = None,
    trials: int = 60,
    seed: int = 0,
    name: str = "compressed",
    store: str | Path | None = None,
    layers: Table | None = None,
    priors: Table | None = None,
    search: Table | None = None,
    training: Table | None = None,
    coding: Table | None = None,
    method: str = "factorized",
    overparameterized: Table | None = None,
    latency: Table | None = None,
    launch: Table | None = None,
    report: Callable[[SearchProgress], None] = lambda progress: None,
) -> Compressed:
    """Search the factorizations and ranks of a model's layers, and return the Pareto front.

    Calling it again with the same store and the same arguments goes on where it stopped.

    Args:
        model: the trained model; it is not changed.
        train, selection, test: loaders of (inputs, targets) batches, or of dictionaries with `labels`: to fine-tune
            with, to select by (what the search sees), and to report with (what it never sees; without it nothing is
            reported on test data).
        metric: of all outputs and all targets of a pass; lower is better unless `search` says otherwise.
        loss: what fine-tuning minimizes.
        example: what one forward takes, as a batch of 1, for MACs, latency and exports; None: see `Supervised`.
        trials, seed, name: as in the `[study]` table of a study file.
        store: SQLAlchemy URL or path of an SQLite file; default `<name>.sqlite`.
        method: also as in the `[study]` table.
        layers, priors, search, training, coding, overparameterized, latency: the tables of a study file, as
            dictionaries.
        launch: the same; the trials run in this process, or with `{"with": "ray"}` on a cluster.
        report: told after every trial how far the search is.

    Raises:
        RankSearchError: something cannot be used; the message says what.
    """
    task = Supervised(
        network=model,
        training_batches=train,
        selection_batches=selection,
        test_batches=test,
        loss_function=loss,
        metric=metric,
        metric_name=metric_name,
        one_example=example,
    )
    study = {"name": name, "trials": trials, "seed": seed, "method": method, "store": str(store or "")}
    search = {"objectives": (metric_name, "macs"), **(search or {})}
    tables = {"study": study, "layers": layers, "priors": priors, "search": search, "training": training}
    tables |= {"coding": coding, "overparameterized": overparameterized, "latency": latency, "launch": launch}
    result = run_study(_study(tables), task=task, report=report)
    return Compressed(result.front, result.store, name, result.study.dense, task)


def _study(tables: Mapping[str, Table | None]) -> Study:
    """The study of these tables and a task in Python; a table that is not given is as in a file without it."""
    given = {name: dict(table or {}) for name, table in tables.items()}
    try:
        return Study.from_python({**given, "task": {"factory": IN_PYTHON}, "folder": Path.cwd()})
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in complaints(error, Study))
        raise StudyFileError(f"compress() takes the tables of a study file; these are wrong:\n{lines}") from None

"""Step 14 of the data path: rebuild a trial's model from store and artifact, verify it, write it, verify that."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from rank_search.export.verify import artifact_of, artifacts_of, check_coded, check_measurements, rebuilt
from rank_search.export.written import Deployable, form_of, write_model
from rank_search.store import Store, StudyRecord, TrialRow
from rank_search.study import problem_of
from rank_search.tasks import Task


def build_model(store: Store, study: str, number: int, task: Task | None = None) -> nn.Module:
    """The factorized model of a trial, in evaluation mode, from the store and its artifact alone.

    Args:
        task: the study's task, when it was made in Python; a study file's task is made by its factory.

    Raises:
        QueryError: there is no such study or trial.
        ExportError: the trial kept no model, or was stopped before its full budget.
        ArtifactError: its file is missing or damaged.
    """
    record = store.study(study)
    return rebuilt(problem_of(record, task), store.trial(record, number), artifacts_of(store, record))


def export_trial(
    store: Store,
    study: str,
    number: int,
    folder: Path,
    format: str = "safetensors",
    task: Task | None = None,
    *,
    fuse: bool = False,
    dynamic: Iterable[str] | None = None,
) -> dict[str, Any]:
    """Write a trial's model into a new folder, and return its manifest.

    The rebuilt model must give the recorded selection measurements, but for the rounding of another processor, the
    coded bytes must decode to the same weights, and what was written is read back and must give the same outputs.
    Only then does the folder get its name. If forward draws random numbers, measurements are not compared, and
    outputs with the same draws.

    Args:
        fuse: write the model with its batch norms folded into the layers before them, as its latency was measured.
        dynamic: dimensions that are to take several sizes, beside the batch and those that differ in the selection
            data: "1" (of every input), "ids:1" or "0:1" (of one); "none" leaves out those of the data. What was
            written refuses inputs of any other size.

    Raises:
        ExportError: the folder exists already, the trial has no model, it cannot be fused, or a verification fails;
            nothing is left then.
        ArtifactError: a file of the trial is missing or damaged.
    """
    form_of(folder := Path(folder), format)
    record = store.study(study)
    row, source = store.trial(record, number), artifacts_of(store, record)
    problem = problem_of(record, task)
    model, coded = rebuilt(problem, row, source), source.read(artifact_of(row, "coded"))
    check_coded(model, coded)
    seen = check_measurements(problem, model, row).seen
    made = Deployable(model, problem.task, seen, about_trial(record, row), coded)
    return write_model(made, folder, format, fused=fuse, dynamic=dynamic)


def about_trial(record: StudyRecord, row: TrialRow) -> dict[str, Any]:
    """What is known of a trial."""
    return {
        "study": record.name,
        "trial": row.number,
        "measurements": dict(row.measurements),
        "dense": dict(record.dense),
        **row.model_point.to_json(),
    }

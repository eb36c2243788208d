"""What an export and a packed file have in common: a trial's model rebuilt from its file, and checked."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from rank_search.artifacts import ArtifactStore, artifacts_at
from rank_search.coding import decode, from_safetensors
from rank_search.errors import ExportError
from rank_search.layers import copied
from rank_search.point import Artifact, State
from rank_search.store import Store, StudyRecord, TrialRow, artifact_folder
from rank_search.study import Problem
from rank_search.tasks import Seen, Task, seeded, task_errors, task_measurements, watched
from rank_search.trials import build


def rebuilt(problem: Problem, row: TrialRow, artifacts: ArtifactStore) -> nn.Module:
    """The factorized model of a trial.

    Raises:
        ExportError: the trial kept no model, or it does not fit the task's network.
        ArtifactError: its file is missing or damaged.
    """
    state = from_safetensors(artifacts.read(artifact_of(row, "model")))
    try:
        return build(problem.model, row.model_point, problem.inventory.layers, problem.plugins, state)
    except RuntimeError as error:
        raise ExportError(
            f"The model of trial {row.number} does not fit the task's network: {error}. "
            "Has the network's definition changed since?"
        ) from error


def artifact_of(row: TrialRow, kind: str) -> Artifact:
    """The trial's file of a kind.

    Raises:
        ExportError: it has none.
    """
    for artifact in row.artifacts:
        if artifact.kind == kind:
            return artifact
    if row.state is State.STOPPED:
        raise ExportError(
            f"Trial {row.number} was stopped after {row.budget:g} epochs; only models trained to the full budget are "
            "deployed. Choose a trial that `rank-search front` lists."
        )
    raise ExportError(
        f"The model of trial {row.number} was not kept, as only those of front members are ({row.state}"
        + (f", dominated by trial {row.dominated_by}" if row.dominated_by is not None else "")
        + "). Choose a trial that `rank-search front` lists."
    )


def check_measurements(problem: Problem, model: nn.Module, row: TrialRow) -> Seen:
    """The model must give what was recorded on the selection data, exactly, unless random numbers are drawn for it.

    Returns what its forward was given on the way. The model stays as it was, even if a forward changes its buffers.
    """
    (found, seen), again = measured(problem.task, model, 0), None
    for name, value in found.items():
        recorded = row.measurements.get(name)
        if recorded == value:
            continue
        again = again or measured(problem.task, model, 1)[0]
        if not seen.draws and again == found:
            raise ExportError(
                f"The rebuilt model of trial {row.number} has {name} = {value}, and {recorded} was recorded; they "
                "must be equal. Has the selection data changed?"
            )
    return seen if again is None else replace(seen, draws=True)


def measured(task: Task, model: nn.Module, rng_seed: int = 0) -> tuple[dict[str, float], Seen]:
    """What the task measures on its selection data, and what the forward of the model, a copy, was given for it."""
    own = copied(model)
    with torch.no_grad(), seeded(rng_seed), watched(own) as watch, task_errors("selection() or evaluate()"):
        found = task_measurements(task, own, task.selection(), "selection data")
    return found, watch.seen


def check_coded(model: nn.Module, coded: bytes) -> None:
    """The coded bytes must stand for the model's weights."""
    decoded, state = decode(coded), model.state_dict()
    if decoded.keys() != state.keys() or not all(torch.equal(decoded[name], state[name]) for name in state):
        raise ExportError("The coded bytes do not decode to the model's weights.")


def artifacts_of(store: Store, record: StudyRecord) -> ArtifactStore:
    """Where a study's files are."""
    return artifacts_at(record.artifacts, artifact_folder(store.location, record.folder))

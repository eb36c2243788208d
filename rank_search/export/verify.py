"""What an export and a packed file have in common: a trial's model rebuilt from its file, and checked."""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rank_search.artifacts import ArtifactStore, artifacts_at
from rank_search.coding import decode
from rank_search.errors import ExportError
from rank_search.fronts import Store, StudyRecord, TrialRow, artifact_folder
from rank_search.layers import Example, forward
from rank_search.point import Artifact, State
from rank_search.subject import Subject
from rank_search.trials import Task, build, from_safetensors

_CLOSE: Final = 1e-4  # another runtime, or another layout in memory, adds in another order


def rebuilt(subject: Subject, row: TrialRow, artifacts: ArtifactStore) -> nn.Module:
    """The factorized model of a trial.

    Raises:
        ExportError: the trial kept no model, or it does not fit the task's network.
        ArtifactError: its file is missing or damaged.
    """
    state = from_safetensors(artifacts.read(artifact_of(row, "model")))
    try:
        return build(subject.model, row.point, subject.inventory.layers, subject.plugins, state)
    except RuntimeError as error:
        raise ExportError(
            f"The model of trial {row.number} must fit the task's network; it does not: {error}. "
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
            f"Only what was trained to the full budget is a model to deploy; trial {row.number} was stopped after "
            f"{row.budget:g} epochs. Choose a trial that `rank-search front` lists."
        )
    raise ExportError(
        f"Models of front members are kept; trial {row.number} ({row.state}"
        + (f", dominated by trial {row.dominated_by}" if row.dominated_by is not None else "")
        + ") has none. Choose a trial that `rank-search front` lists."
    )


def check_measurements(subject: Subject, model: nn.Module, row: TrialRow) -> None:
    """The model must give what was recorded on the selection data, exactly."""
    with torch.no_grad():
        found = subject.task.evaluate(model, subject.task.selection())
    for name, value in found.items():
        if float(value) != row.measurements[name]:
            raise ExportError(
                f"The rebuilt model must give the recorded {name} exactly; trial {row.number} was recorded with "
                f"{row.measurements[name]}, the rebuilt model has {float(value)}. Has the selection data changed?"
            )


def check_coded(model: nn.Module, coded: bytes) -> None:
    """The coded bytes must stand for the model's weights."""
    decoded, state = decode(coded), model.state_dict()
    if decoded.keys() != state.keys() or not all(torch.equal(decoded[name], state[name]) for name in state):
        raise ExportError("The coded bytes must decode to the model's weights; they do not.")


class Beside(nn.Module):
    """The model, with another one run beside it that must give the same outputs; remembers how far they differ."""

    def __init__(self, model: nn.Module, written: nn.Module) -> None:
        super().__init__()
        self.model, self.written, self.worst = model, [written], 0.0

    def forward(self, *inputs: Tensor) -> Any:
        expected = self.model(*inputs)
        pairs = zip(pytree.tree_leaves(expected), pytree.tree_leaves(self.written[0](*inputs)), strict=True)
        distances = [_distance(one, other) for one, other in pairs if isinstance(one, Tensor)]
        self.worst = max([self.worst, *distances])
        return expected


def check_outputs(task: Task, beside: Beside, any_batch: bool) -> None:
    """Compare outputs on the example, and on all the selection data if what was written takes its batches."""
    if any_batch:
        with torch.no_grad():
            task.evaluate(beside, task.selection())
    check_close(beside, task.example())


def check_close(beside: Beside, example: Example) -> None:
    """Compare outputs on an example; those that were compared before count, too."""
    with torch.no_grad():
        forward(beside, example)
    if not beside.worst <= _CLOSE:
        raise ExportError(f"What was written must give the model's outputs; they differ by up to {beside.worst:.3g}.")


def _distance(expected: Tensor, found: Tensor) -> float:
    """Largest difference, relative to the largest expected output."""
    if expected.shape != found.shape:
        return math.inf
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    return float((expected.double() - found.double()).abs().max()) / scale if expected.numel() else 0.0


def artifacts_of(store: Store, record: StudyRecord) -> ArtifactStore:
    """Where a study's files are."""
    return artifacts_at(record.artifacts, artifact_folder(store.location, record.folder))

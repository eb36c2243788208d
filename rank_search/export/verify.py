"""What an export and a packed file have in common: a trial's model rebuilt from its file, and checked."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import nn

from rank_search.artifacts import ArtifactStore, artifacts_at
from rank_search.coding import decode, from_safetensors
from rank_search.errors import ExportError
from rank_search.layers import copied
from rank_search.point import Artifact, State
from rank_search.store import Store, StudyRecord, TrialRow, artifact_folder
from rank_search.study import Problem
from rank_search.tasks import Seen, Task, seeded, selection_examples, task_errors, task_measurements, watched
from rank_search.trials import build

_log = logging.getLogger(__name__)

_ROUNDING: Final = 1e-3


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


@dataclass(frozen=True)
class Checked:
    """What the selection data gave a rebuilt model, and what its forward was given for it."""

    found: Mapping[str, float]
    seen: Seen

    def check(self, problem: Problem, model: nn.Module) -> None:
        """Another copy of the model must give the same, exactly, unless random numbers are drawn for it."""
        again = measured(problem.task, model)[0]
        if again != self.found and not self.seen.draws:
            raise ExportError(f"What was written measures {again}, and the model {self.found}; they must be equal.")


def check_measurements(problem: Problem, model: nn.Module, row: TrialRow) -> Checked:
    """The model must give what was recorded on the selection data, unless random numbers are drawn for it.

    It must give it exactly, but for what another processor or device rounds otherwise (`_is_rounding`), of which a
    warning tells. The model stays as it was, even if a forward changes its buffers.

    Raises:
        ExportError: it gives something else.
    """
    found, seen = measured(problem.task, model)
    other = {name: row.measurements.get(name) for name, value in found.items() if row.measurements.get(name) != value}
    if not other:
        return Checked(found, seen)
    if seen.draws or measured(problem.task, model, 1)[0] != found:
        return Checked(found, replace(seen, draws=True))
    for name, recorded in other.items():
        what = f"The rebuilt model of trial {row.number} has {name} = {found[name]}, and {recorded} was recorded"
        if recorded is None or not _is_rounding(found[name], recorded, selection_examples(problem.task)):
            raise ExportError(
                f"{what}. They must be equal, but for what another processor may round otherwise. Has the selection "
                "data changed?"
            )
        _log.warning("%s: another processor rounds otherwise.", what)
    return Checked(found, seen)


def _is_rounding(value: float, recorded: float, examples: int | None) -> bool:
    """Whether two machines may measure this of one model.

    Measurements may differ by a thousandth of what was recorded; shares of the examples, such as an error rate, by one
    example in a thousand, at least one. A GPU multiplies to three digits by default (TF32).
    """
    if math.isclose(value, recorded, rel_tol=_ROUNDING):
        return True
    if not examples:
        return False
    counts = value * examples, recorded * examples
    are_shares = all(0 <= each <= examples and math.isclose(each, round(each), abs_tol=0.01) for each in counts)
    return are_shares and abs(round(counts[0]) - round(counts[1])) <= max(1, _ROUNDING * examples)


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

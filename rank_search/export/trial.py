"""Step 13 of the data path: rebuild a trial's model from store and artifact, verify it, write it, verify that."""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rank_search.artifacts import ArtifactStore, artifacts_at
from rank_search.errors import ExportError
from rank_search.export.formats import CODED, GRAPH, MANIFEST, READERS, TENSORS, WRITERS, read_safetensors
from rank_search.fronts import Store, StudyRecord, TrialRow, artifact_folder
from rank_search.layers import forward
from rank_search.point import Artifact, State
from rank_search.subject import Subject, subject_of
from rank_search.trials import Task, build, decode, from_safetensors

_CLOSE = 1e-4  # another runtime, or another layout in memory, adds in another order


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
    return _rebuilt(subject_of(record, task), store.trial(record, number), _artifacts(store, record))


def export_trial(
    store: Store, study: str, number: int, folder: Path, format: str = "safetensors", task: Task | None = None
) -> dict[str, Any]:
    """Write a trial's model into a new folder, and return its manifest.

    The rebuilt model must give the recorded selection measurements exactly, the coded bytes must decode to the
    same weights, and what was written is read back and must give the same outputs. Only then does the folder
    get its name.

    Raises:
        ExportError: the folder exists already, the trial has no model, or a verification fails; nothing is left then.
        ArtifactError: a file of the trial is missing or damaged.
    """
    folder = Path(folder)
    if folder.exists():
        raise ExportError(f"An export makes its own folder; {folder} is there already. Name another one.")
    if format not in WRITERS:
        raise ExportError(f"A format is one of {', '.join(WRITERS)}; found {format!r}.")
    record = store.study(study)
    row, source = store.trial(record, number), _artifacts(store, record)
    subject = subject_of(record, task)
    model = _rebuilt(subject, row, source)
    _check_measurements(subject, model, row)
    coded = source.read(_artifact(row, "coded"))
    _check_coded(model, coded)
    temporary = _temporary_beside(folder)
    try:
        (temporary / CODED).write_bytes(coded)
        any_batch = WRITERS[format](model, subject.task.example(), temporary)
        _check_outputs(subject.task, _Beside(model, READERS[format](temporary)), any_batch)
        manifest = _manifest(record, row, subject, format, any_batch, temporary)
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.rename(folder)
    except OSError as error:
        raise ExportError(
            f"{folder} could not be written: {error.strerror or error}. Nothing is left of it."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def load(folder: str | Path) -> nn.Module:
    """The model in a folder that `rank-search export --format safetensors` wrote, in evaluation mode.

    Runs no code of the folder's and unpickles nothing. Needs neither the store nor the task.

    Raises:
        ExportError: the folder was not written by an export, or its files have changed since.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        kind, files = manifest["format"], dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ExportError(
            f"An exported folder holds a {MANIFEST}; that of {folder} cannot be read: {type(error).__name__}: {error}."
        ) from error
    if kind != "safetensors":
        raise ExportError(f"{folder} holds the format {kind!r}; load() reads safetensors.")
    if changed := [name for name in (GRAPH, TENSORS, CODED) if _digest(folder / name) != files.get(name)]:
        raise ExportError(
            f"The files of an export stay as they were written; {', '.join(changed)} in {folder} did not. "
            "Export the model again."
        )
    return read_safetensors(folder)


def _rebuilt(subject: Subject, row: TrialRow, artifacts: ArtifactStore) -> nn.Module:
    state = from_safetensors(artifacts.read(_artifact(row, "model")))
    try:
        return build(subject.model, row.point, subject.inventory.layers, subject.plugins, state)
    except RuntimeError as error:
        raise ExportError(
            f"The model of trial {row.number} must fit the task's network; it does not: {error}. "
            "Has the network's definition changed since?"
        ) from error


def _artifact(row: TrialRow, kind: str) -> Artifact:
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


def _check_measurements(subject: Subject, model: nn.Module, row: TrialRow) -> None:
    with torch.no_grad():
        found = subject.task.evaluate(model, subject.task.selection())
    for name, value in found.items():
        if float(value) != row.measurements[name]:
            raise ExportError(
                f"The rebuilt model must give the recorded {name} exactly; trial {row.number} was recorded with "
                f"{row.measurements[name]}, the rebuilt model has {float(value)}. Has the selection data changed?"
            )


def _check_coded(model: nn.Module, coded: bytes) -> None:
    decoded, state = decode(coded), model.state_dict()
    if decoded.keys() != state.keys() or not all(torch.equal(decoded[name], state[name]) for name in state):
        raise ExportError("The coded bytes must decode to the model's weights; they do not.")


class _Beside(nn.Module):
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


def _check_outputs(task: Task, beside: _Beside, any_batch: bool) -> None:
    """Compare outputs on the example, and on all the selection data if what was written takes its batches."""
    with torch.no_grad():
        forward(beside, task.example())
        if any_batch:
            task.evaluate(beside, task.selection())
    if not beside.worst <= _CLOSE:
        raise ExportError(f"What was written must give the model's outputs; they differ by up to {beside.worst:.3g}.")


def _distance(expected: Tensor, found: Tensor) -> float:
    """Largest difference, relative to the largest expected output."""
    if expected.shape != found.shape:
        return math.inf
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    return float((expected.double() - found.double()).abs().max()) / scale if expected.numel() else 0.0


def _manifest(
    record: StudyRecord, row: TrialRow, subject: Subject, format: str, any_batch: bool, folder: Path
) -> dict[str, Any]:
    example = subject.task.example()
    return {
        "rank_search": version("rank-search"),
        "format": format,
        "study": record.name,
        "trial": row.number,
        "measurements": dict(row.measurements),
        "dense": dict(record.dense),
        **row.point.to_json(),
        "any_batch": any_batch,
        "inputs": [list(each.shape) for each in (example if isinstance(example, tuple) else (example,))],
        "files": {path.name: _sha256(path) for path in sorted(folder.iterdir())},
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(path: Path) -> str:
    """SHA-256 of a file; empty if it cannot be read."""
    try:
        return _sha256(path)
    except OSError:
        return ""


def _temporary_beside(folder: Path) -> Path:
    made = folder.absolute().with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        made.mkdir(parents=True)
    except OSError as error:
        raise ExportError(f"{folder} could not be made: {error.strerror or error}.") from error
    return made


def _artifacts(store: Store, record: StudyRecord) -> ArtifactStore:
    return artifacts_at(record.artifacts, artifact_folder(store.location, record.name))

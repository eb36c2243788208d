"""Step 13 of the data path: rebuild a trial's model from store and artifact, verify it, write it, verify that."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from rank_search.errors import ExportError
from rank_search.export.formats import CODED, GRAPH, MANIFEST, READERS, TENSORS, WRITERS, read_safetensors
from rank_search.export.packed_file import LARGEST, read_packed
from rank_search.export.verify import (
    Beside,
    artifact_of,
    artifacts_of,
    check_coded,
    check_measurements,
    check_outputs,
    rebuilt,
)
from rank_search.fronts import Store, StudyRecord, TrialRow
from rank_search.layers import Example, fuse
from rank_search.subject import Subject, subject_of
from rank_search.trials import Task


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
    return rebuilt(subject_of(record, task), store.trial(record, number), artifacts_of(store, record))


def export_trial(
    store: Store,
    study: str,
    number: int,
    folder: Path,
    format: str = "safetensors",
    task: Task | None = None,
    *,
    fuse: bool = False,
) -> dict[str, Any]:
    """Write a trial's model into a new folder, and return its manifest.

    The rebuilt model must give the recorded selection measurements exactly, the coded bytes must decode to the
    same weights, and what was written is read back and must give the same outputs. Only then does the folder
    get its name.

    Args:
        fuse: write the model with its batch norms folded into the layers before them, as its latency was measured.

    Raises:
        ExportError: the folder exists already, the trial has no model, it cannot be fused, or a verification fails;
            nothing is left then.
        ArtifactError: a file of the trial is missing or damaged.
    """
    folder = Path(folder)
    if folder.exists():
        raise ExportError(f"An export makes its own folder; {folder} is there already. Name another one.")
    if format not in WRITERS:
        raise ExportError(f"A format is one of {', '.join(WRITERS)}; found {format!r}.")
    record = store.study(study)
    row, source = store.trial(record, number), artifacts_of(store, record)
    subject = subject_of(record, task)
    model = rebuilt(subject, row, source)
    check_measurements(subject, model, row)
    coded = source.read(artifact_of(row, "coded"))
    check_coded(model, coded)
    with made_whole(folder) as temporary:
        (temporary / CODED).write_bytes(coded)
        written = _fused(model, subject.task.example()) if fuse else model
        any_batch = WRITERS[format](written, subject.task.example(), temporary)
        check_outputs(subject.task, Beside(model, READERS[format](temporary)), any_batch)
        manifest = manifest_of(record, row, subject, format, any_batch)
        manifest |= {"files": files_in(temporary), "fused": fuse}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.rename(folder)
    return manifest


def load(folder: str | Path, largest: int = LARGEST) -> nn.Module:
    """The model in a folder that `rank-search export --format safetensors` wrote, or in a file of `rank-search pack`.

    In evaluation mode. Runs no code of the folder's and unpickles nothing. Needs neither the store nor the task.

    Args:
        largest: numbers that a file may claim to hold; a few bytes can stand for any number of equal ones.

    Raises:
        ExportError: the folder was not written by an export, or the file by a pack, or they have changed since.
    """
    folder = Path(folder)
    if folder.is_file():
        return read_packed(folder).model(largest)
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


def _fused(model: nn.Module, example: Example) -> nn.Module:
    found = fuse(model, example)
    if found is None:
        raise ExportError(
            "Only a model that torch.fx can trace, and that gives the same outputs afterwards, can be fused; this one "
            "cannot. Export it without --fuse."
        )
    return found


def files_in(folder: Path) -> dict[str, str]:
    """The files of a folder, each with its SHA-256."""
    return {path.name: _sha256(path) for path in sorted(folder.iterdir())}


def manifest_of(record: StudyRecord, row: TrialRow, subject: Subject, format: str, any_batch: bool) -> dict[str, Any]:
    """What is known of a trial and its model."""
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
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(path: Path) -> str:
    """SHA-256 of a file; empty if it cannot be read."""
    try:
        return _sha256(path)
    except OSError:
        return ""


@contextmanager
def made_whole(target: Path) -> Iterator[Path]:
    """A new hidden folder beside what is to come, which is gone afterwards: what is not moved out of it leaves nothing.

    Raises:
        ExportError: it could not be made, or what was done inside raised OSError.
    """
    made = target.absolute().with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        made.mkdir(parents=True)
    except OSError as error:
        raise ExportError(f"{target} could not be made: {error.strerror or error}.") from error
    try:
        yield made
    except OSError as error:
        raise ExportError(
            f"{target} could not be written: {error.strerror or error}. Nothing is left of it."
        ) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)

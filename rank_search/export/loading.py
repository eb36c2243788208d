"""A model read back on the machine that runs it: with torch, numpy, safetensors and constriction alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from rank_search.errors import ExportError
from rank_search.export.loaded import from_json
from rank_search.export.packed_file import LARGEST, read_packed
from rank_search.programs import sizes_in

MANIFEST: Final = "manifest.json"
GRAPH: Final = "graph.json"
TENSORS: Final = "model.safetensors"
CODED: Final = "model.coded"


def load(folder: str | Path, largest: int = LARGEST) -> nn.Module:
    """The model in a folder that `rank-search export --format safetensors` wrote, or in a file of `rank-search pack`.

    In evaluation mode. Runs no code of the folder's and unpickles nothing. Needs neither the store nor the task. Called
    with inputs of other sizes than those it was exported for, it raises ExportError.

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
            f"{folder} is no exported model: its {MANIFEST} cannot be read: {type(error).__name__}: {error}."
        ) from error
    if kind != "safetensors":
        raise ExportError(f"{folder} holds the format {kind!r}; load() reads safetensors.")
    wanted = [GRAPH, TENSORS, *([CODED] if CODED in files else [])]  # what no trial has coded has no such file
    if changed := [name for name in wanted if _digest(folder / name) != files.get(name)]:
        raise ExportError(f"Changed since the export: {', '.join(changed)} in {folder}. Export the model again.")
    return read_safetensors(folder, manifest)


def read_safetensors(folder: Path, manifest: Mapping[str, Any]) -> nn.Module:
    """The module of a graph and its tensors.

    Raises:
        ExportError: a file is missing, damaged, or is not what an export writes.
    """
    try:
        graph = json.loads((folder / GRAPH).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise ExportError(
            f"{GRAPH} and {TENSORS} in {folder} cannot be read: {error}. "
            "Export the model again with --format safetensors."
        ) from error
    return from_json(graph, tensors, sizes_in(manifest))


def files_in(folder: Path) -> dict[str, str]:
    """The files of a folder, each with its SHA-256."""
    return {path.name: _sha256(path) for path in sorted(folder.iterdir())}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(path: Path) -> str:
    """SHA-256 of a file; empty if it cannot be read."""
    try:
        return _sha256(path)
    except OSError:
        return ""

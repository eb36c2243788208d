"""A model as one small file, and back into a folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save_file
from torch import nn

from rank_search.coding import encode
from rank_search.errors import ExportError
from rank_search.export.formats import CODED, GRAPH, MANIFEST, TENSORS, trace
from rank_search.export.graph import to_json
from rank_search.export.packed_file import LARGEST, Packed, read_packed, write_packed
from rank_search.export.trial import files_in, load, made_whole, manifest_of
from rank_search.export.verify import (
    Beside,
    artifact_of,
    artifacts_of,
    check_close,
    check_coded,
    check_measurements,
    check_outputs,
    rebuilt,
)
from rank_search.fronts import Store
from rank_search.layers import Example
from rank_search.subject import subject_of
from rank_search.trials import Task, build

ENDING: Final = ".rsz"


def pack_trial(store: Store, study: str, number: int, path: Path, task: Task | None = None) -> Packed:
    """Write a trial's model into one file, and return its parts.

    The rebuilt model must give the recorded selection measurements exactly. The file is read again before it gets its
    name: what it decodes to must give them exactly, too, and the module that `load` makes of it the same outputs.

    Raises:
        ExportError: the file exists already, the trial has no model, it cannot be traced, or a verification fails;
            nothing is left then.
        ArtifactError: a file of the trial is missing or damaged.
        QueryError: there is no such study or trial.
    """
    path = Path(path)
    if path.exists():
        raise ExportError(f"A pack makes its own file; {path} is there already. Name another one.")
    record = store.study(study)
    row, source, subject = store.trial(record, number), artifacts_of(store, record), subject_of(record, task)
    model = rebuilt(subject, row, source)
    check_measurements(subject, model, row)
    coded = source.read(artifact_of(row, "coded"))
    check_coded(model, coded)
    packed, any_batch = _packed(model, subject.task.example(), coded)
    manifest = manifest_of(record, row, subject, "rsz", any_batch)
    with made_whole(path) as temporary:
        write_packed(Packed({**manifest, **packed.manifest}, packed.payload, packed.constants), temporary / path.name)
        written = read_packed(temporary / path.name)
        decoded = build(
            subject.model, row.point, subject.inventory.layers, subject.plugins, written.tensors(sys.maxsize)
        )
        check_measurements(subject, decoded, row)
        check_outputs(subject.task, Beside(model, written.model(sys.maxsize)), any_batch)
        (temporary / path.name).rename(path)
    return written


def pack_module(model: nn.Module, example: Example, coded: bytes, path: Path, about: Mapping[str, Any]) -> Packed:
    """Write a module and its coded state into one file, and return its parts.

    The file is read again before it gets its name: the module that `load` makes of it must give the same outputs on
    the example.

    Args:
        coded: must decode to the module's state.
        about: what else the manifest is to say.

    Raises:
        ExportError: the file exists already, the module cannot be traced, or a verification fails; nothing is left
            then.
    """
    if path.exists():
        raise ExportError(f"A pack makes its own file; {path} is there already. Name another one.")
    check_coded(model, coded)
    packed, any_batch = _packed(model, example, coded)
    inputs = [list(each.shape) for each in (example if isinstance(example, tuple) else (example,))]
    manifest = {"rank_search": version("rank-search"), "format": "rsz", "any_batch": any_batch, "inputs": inputs}
    with made_whole(path) as temporary:
        parts = Packed({**manifest, **about, **packed.manifest}, packed.payload, packed.constants)
        write_packed(parts, temporary / path.name)
        written = read_packed(temporary / path.name)
        check_close(Beside(model, written.model(sys.maxsize)), example)
        (temporary / path.name).rename(path)
    return written


def _packed(model: nn.Module, example: Example, coded: bytes) -> tuple[Packed, bool]:
    """The graph, the coded bytes, and what the graph names beside them."""
    program, any_batch = trace(model, example)
    graph, tensors = to_json(program)
    state = model.state_dict()
    beside = {name: tensor for name, tensor in tensors.items() if name not in state}
    return Packed({"graph": graph}, coded, encode(beside) if beside else b""), any_batch


def unpack_file(path: Path, folder: Path, largest: int = LARGEST) -> dict[str, Any]:
    """Write a packed model into a new folder, as `rank-search export` would have, and return its manifest.

    Args:
        largest: as in `rank_search.load`.

    Raises:
        ExportError: the folder exists already or cannot be written, or the file is no packed model or damaged;
            nothing is left then.
    """
    folder = Path(folder)
    if folder.exists():
        raise ExportError(f"An unpack makes its own folder; {folder} is there already. Name another one.")
    packed = read_packed(Path(path))
    tensors = packed.tensors(largest)
    graph = packed.manifest["graph"]
    packed.model(largest)
    with made_whole(folder) as temporary:
        (temporary / GRAPH).write_text(json.dumps(graph), encoding="utf-8")
        named = {node["target"] for node in graph["nodes"] if node["op"] == "tensor"}
        save_file({name: tensors[name].contiguous().clone() for name in named}, temporary / TENSORS)
        (temporary / CODED).write_bytes(packed.payload)
        hidden = ("graph", "payload_sha256", "constants_sha256")
        about = {key: value for key, value in packed.manifest.items() if key not in hidden}
        manifest = about | {"format": "safetensors", "fused": False, "files": files_in(temporary)}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        load(temporary)
        temporary.rename(folder)
    return manifest

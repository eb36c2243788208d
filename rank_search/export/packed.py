"""A model as one small file, and back into a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from rank_search.basics import publish
from rank_search.coding import decode, encode
from rank_search.export.arguments import Arguments
from rank_search.export.asked import places_asked
from rank_search.export.compared import Beside
from rank_search.export.graph import to_json
from rank_search.export.packed_file import Packed, read_packed, write_packed
from rank_search.export.tracing import Place, trace
from rank_search.export.trial_model import about_trial
from rank_search.export.verify import artifact_of, artifacts_of, check_coded, check_measurements, rebuilt
from rank_search.export.whole import check_free, made_whole
from rank_search.export.written import Deployable, about_inputs, manifest_of
from rank_search.layers import Example, copied
from rank_search.programs import Sizes
from rank_search.store import Store
from rank_search.study import problem_of
from rank_search.tasks import Task
from rank_search.trials import build


def pack_trial(
    store: Store,
    study: str,
    number: int,
    path: Path,
    task: Task | None = None,
    *,
    dynamic: Iterable[str] | None = None,
) -> Packed:
    """Write a trial's model into one file, and return its parts.

    The rebuilt model must give the recorded selection measurements, but for the rounding of another processor. The file
    is read again before it gets its name: what it decodes to must measure exactly what the model does, and the module
    that `load` makes of it must give the same outputs.

    Args:
        dynamic: dimensions that are to take several sizes, as in `export_trial`.

    Raises:
        ExportError: the file exists already, the trial has no model, it cannot be traced, or a verification fails;
            nothing is left then.
        ArtifactError: a file of the trial is missing or damaged.
        QueryError: there is no such study or trial.
    """
    path = Path(path)
    check_free(path, "a packed model is a new file")
    record = store.study(study)
    row, source, problem = store.trial(record, number), artifacts_of(store, record), problem_of(record, task)
    model = rebuilt(problem, row, source)
    coded = source.read(artifact_of(row, "coded"))
    check_coded(model, coded)
    checked = check_measurements(problem, model, row)
    made = Deployable(model, problem.task, checked.seen, about_trial(record, row))
    example = made.example
    packed, sizes = _packed(model, example, coded, places_asked(dynamic, model, example, checked.seen))
    manifest = manifest_of(made, "rsz", sizes)
    with made_whole(path) as temporary:
        write_packed(Packed({**manifest, **packed.manifest}, packed.payload, packed.constants), temporary / path.name)
        written = read_packed(temporary / path.name)
        state = decode(written.payload, sys.maxsize)
        decoded = build(problem.model, row.model_point, problem.inventory.layers, problem.plugins, state)
        checked.check(problem, decoded)
        Beside.of(model, written.model(sys.maxsize), sizes).check(example, problem.task)
        publish(temporary / path.name, path)
    return replace(written, manifest={**manifest, **packed.manifest})


def pack_module(
    model: nn.Module,
    example: Example,
    coded: bytes,
    path: Path,
    about: Mapping[str, Any],
    asked: set[Place],
) -> Packed:
    """Write a module and its coded state into one file, and return its parts.

    The file is read again before it gets its name: the module that `load` makes of it must give the same outputs on
    the example.

    Args:
        coded: must decode to the module's state.
        about: what else the manifest is to say.
        asked: the dimensions that are to take several sizes.

    Raises:
        ExportError: the file exists already, the module cannot be traced, or a verification fails; nothing is left
            then.
    """
    check_free(path, "a packed model is a new file")
    check_coded(model, coded)
    packed, sizes = _packed(model, example, coded, asked)
    manifest = {
        "rank_search": version("rank-search"),
        "format": "rsz",
        **about_inputs(Arguments.of(model, example), sizes),
    }
    with made_whole(path) as temporary:
        parts = Packed({**manifest, **about, **packed.manifest}, packed.payload, packed.constants)
        write_packed(parts, temporary / path.name)
        written = read_packed(temporary / path.name)
        Beside.of(model, written.model(sys.maxsize), sizes).check(example)
        publish(temporary / path.name, path)
    return written


def _packed(model: nn.Module, example: Example, coded: bytes, asked: set[Place]) -> tuple[Packed, Sizes]:
    """The graph, the coded bytes, and what the graph names beside them."""
    traced = trace(copied(model), example, asked)
    graph, tensors = to_json(traced.program, traced.arguments)
    state = model.state_dict()
    beside = {name: tensor for name, tensor in tensors.items() if name not in state}
    return Packed({"graph": graph}, coded, encode(beside) if beside else b""), traced.sizes

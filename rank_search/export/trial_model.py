"""Step 14 of the data path: rebuild a trial's model from store and artifact, verify it, write it, verify that."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from rank_search.errors import ExportError
from rank_search.export.asked import places_asked
from rank_search.export.compared import Beside, wide
from rank_search.export.formats import FORMATS
from rank_search.export.loading import CODED, MANIFEST, files_in
from rank_search.export.sizes import Sizes
from rank_search.export.tracing import parts_of, trace
from rank_search.export.verify import artifact_of, artifacts_of, check_coded, check_measurements, rebuilt
from rank_search.export.whole import check_free, made_whole, publish
from rank_search.layers import Example, copied, fuse
from rank_search.store import Store, StudyRecord, TrialRow
from rank_search.study import Problem, problem_of
from rank_search.tasks import Seen, Task


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

    The rebuilt model must give the recorded selection measurements exactly, the coded bytes must decode to the
    same weights, and what was written is read back and must give the same outputs. Only then does the folder
    get its name. If forward draws random numbers, measurements are not compared, and outputs with the same draws.

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
    folder = Path(folder)
    check_free(folder, "An export makes its own folder")
    if format not in FORMATS:
        raise ExportError(f"A format is one of {', '.join(FORMATS)}; found {format!r}.")
    form, record = FORMATS[format], store.study(study)
    row, source = store.trial(record, number), artifacts_of(store, record)
    problem = problem_of(record, task)
    model, example = rebuilt(problem, row, source), problem.task.example()
    coded = source.read(artifact_of(row, "coded"))
    check_coded(model, coded)
    seen = check_measurements(problem, model, row)
    plain = _fused(model, example) if fuse else model
    written = form.prepared(plain)
    asked = places_asked(dynamic, model, parts_of(example), seen)
    with made_whole(folder) as temporary:
        (temporary / CODED).write_bytes(coded)
        traced = trace(copied(written), _like(written, plain, example), asked)
        form.write(traced, temporary)
        manifest = manifest_of(record, row, problem, format, traced.sizes, seen) | {"fused": fuse}
        manifest |= {"widened": written is not plain}
        beside = Beside.of(
            model,
            form.read(temporary, manifest),
            traced.sizes,
            same_draws=form.same_draws or not seen.draws,
            wide=None if written is plain else written,
        )
        beside.check(example, problem.task)
        manifest |= {"files": files_in(temporary)}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        publish(temporary, folder)
    return manifest


def _like(written: nn.Module, model: nn.Module, example: Example) -> Example:
    """The example as what is written takes it."""
    return example if written is model else tuple(map(wide, parts_of(example)))


def _fused(model: nn.Module, example: Example) -> nn.Module:
    found = fuse(model, example)
    if found is None:
        raise ExportError(
            "Only a model that torch.fx can trace, and that gives the same outputs afterwards, can be fused; this one "
            "cannot. Export it without --fuse."
        )
    return found


def manifest_of(
    record: StudyRecord, row: TrialRow, problem: Problem, format: str, sizes: Sizes, seen: Seen
) -> dict[str, Any]:
    """What is known of a trial and its model."""
    return {
        "rank_search": version("rank-search"),
        "format": format,
        "study": record.name,
        "trial": row.number,
        "measurements": dict(row.measurements),
        "dense": dict(record.dense),
        **row.point.to_json(),
        "draws": seen.draws,
        **about_inputs(problem.task.example(), sizes),
    }


def about_inputs(example: Example, sizes: Sizes) -> dict[str, Any]:
    """The inputs of a model, and the sizes that it takes."""
    inputs = [list(each.shape) for each in parts_of(example)]
    return {"any_batch": sizes.any_batch, "inputs": inputs, "sizes": sizes.to_json()}

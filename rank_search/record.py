"""A study as the store keeps it: what it was made from, its space, and the box that hypervolumes are measured in."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from torch import nn

from rank_search.artifacts import ArtifactStore
from rank_search.errors import StudyFileError, StudyMismatchError
from rank_search.fronts import PriorRow, Store, StudyRecord, artifact_folder
from rank_search.fronts.database import locate
from rank_search.layers import installed
from rank_search.point import Objective
from rank_search.prepare import Prepared
from rank_search.priors import AxisPrior
from rank_search.search import SearchSettings
from rank_search.study import Study
from rank_search.subject import Subject, resolved
from rank_search.trials import Workbench, dense_measurements, test_measurements

_COUNTED = ("params", "macs", "bits", "latency")


def join_study(store: Store, location: str, prepared: Prepared, workbench: Workbench) -> StudyRecord:
    """The study as the store has it; the dense model is measured only for a new one.

    Args:
        location: of the store, as given.
    """
    subject = prepared.subject
    study, seen = subject.study, {each.name for each in store.studies()}
    record = StudyRecord(
        name=study.name,
        fingerprint=fingerprint(subject),
        space={
            "study": _as_kept(study),
            "folder": str(study.folder),
            "coordinates": prepared.space.to_json(),
        },
        objectives=study.search.objectives,
        reference_point={},
        ideal={},
        dense={},
        budget=study.training.epochs,
        priors=tuple(map(_prior_row, prepared.priors)),
        artifacts=_artifacts(study, location),
    )
    if study.name not in seen:
        record = _measured(record, workbench, study.search)
    joined = store.join(record)
    if study.study.artifacts and joined.artifacts != record.artifacts:
        raise StudyMismatchError(
            f"A study's files stay in one place; those of {study.name!r} are in "
            f"{joined.artifacts or 'the folder beside its store'}, and [study] artifacts says {record.artifacts}. "
            "Leave the key out, or give the study another name."
        )
    return joined


def _measured(record: StudyRecord, workbench: Workbench, search: SearchSettings) -> StudyRecord:
    """The record with the dense model's measurements, and the box that hypervolumes are measured in."""
    dense, wanted = dense_measurements(workbench), search.reference
    search.require_measured(dense)
    boxes = {each.name: _box(each, dense[each.name], wanted.get(each.name)) for each in record.objectives}
    return replace(
        record,
        dense=dense | test_measurements(workbench.task, workbench.dense),
        ideal={name: ideal for name, (ideal, _) in boxes.items()},
        reference_point={name: reference for name, (_, reference) in boxes.items()},
    )


def _box(objective: Objective, dense: float, wanted: float | None) -> tuple[float, float]:
    """Ideal and reference loss of one objective.

    Costs lie between 0 and the dense model's. What a task measures lies between 0 (maximized: the larger of 1 and
    the dense model's) and a tenth, or half its own size if that is more, beyond the dense model's.
    """
    loss = objective.loss(dense)
    margin = 0.0 if objective.name in _COUNTED else max(0.1, abs(loss) / 2)
    reference = loss + margin if wanted is None else objective.loss(wanted)
    ideal = min(0.0, loss) if objective.direction == "minimize" else objective.loss(max(1.0, dense))
    return ideal, max(reference, ideal + 1e-12)


def _prior_row(prior: AxisPrior) -> PriorRow:
    return PriorRow(
        layer=prior.layer,
        factorization=prior.factorization,
        axis=prior.axis,
        rank=int(prior.prior),
        full_rank=int(prior.full),
        noise_variance=prior.noise_variance,
        energy_kept=prior.energy_kept,
        break_even=prior.break_even,
    )


def _artifacts(study: Study, location: str) -> str:
    """Where the study's files are, for whoever opens the store from wherever; nothing if beside the store itself."""
    given = study.study.artifacts
    if ArtifactStore(given).location != given:
        raise StudyFileError(
            "study.artifacts is kept in the store for all to read, so it holds no credentials; found some. Put them in "
            "the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or fsspec's configuration of every machine."
        )
    if given:
        place = given.rstrip("/") if "://" in given else str(Path(given).absolute())
        return f"{place}/{quote(study.name, safe=' ')}"
    is_file = locate(location).get_backend_name() == "sqlite"
    return "" if is_file else str(artifact_folder(location, study.name))


def _as_kept(study: Study) -> dict[str, Any]:
    """The study file as the store keeps it: without where the store is, which may hold a password, and without what
    says only how trials are run."""
    kept = study.model_dump(mode="json", by_alias=True)
    del kept["launch"]
    for key in ("store", "artifacts"):
        del kept["study"][key]
    if kept["search"]["rungs"] is None:
        del kept["search"]["rungs"]  # as in stores from before there were rungs
    return kept


def fingerprint(subject: Subject) -> dict[str, str]:
    """What the study was made from, part by part: every key but those of [launch] and how long and where it goes
    on; the weights; the versions of the plugins.
    """
    study = subject.study
    kept = _as_kept(study)
    for key in ("trials", "cache"):
        del kept["study"][key]
    parts = {key: str(value) for table, keys in kept.items() for key, value in _flat(table, keys)}
    parts["weights"] = _digest(subject.model)
    return parts | {f"plugin {name}": _plugin_version(resolved(name, study.folder)) for name in subject.plugins}


def _flat(path: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        return [(path, value)]
    return [pair for key, inner in value.items() for pair in _flat(f"{path}.{key}", inner)]


def _digest(model: nn.Module) -> str:
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _plugin_version(name: str) -> str:
    """The version of its package; of a plugin in a file, what the file holds."""
    file, in_file, _ = name.rpartition(":")
    if in_file:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    entry = installed().get(name)
    return entry.dist.version if entry is not None and entry.dist is not None else version("rank-search")

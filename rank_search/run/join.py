"""A study as the store keeps it: what it was made from, its space, and the box that hypervolumes are measured in."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from rank_search.artifacts import ArtifactStore
from rank_search.errors import StudyFileError, StudyMismatchError
from rank_search.export import say_if_no_folder, say_if_unexportable
from rank_search.layers import Layer, plugin_version
from rank_search.options import Forms, measure_forms
from rank_search.pareto import ReferenceBox
from rank_search.point import Choice
from rank_search.priors import AxisPrior
from rank_search.run.preparation import Prepared, with_forms
from rank_search.search import SearchSettings
from rank_search.store import (
    CODE,
    EXAMPLES,
    LAYER_COSTS,
    MEANINGS,
    SIGNAL,
    PriorRow,
    Store,
    StudyRecord,
    artifact_folder,
    locate,
)
from rank_search.study import Problem, Study, beside, relative_part, task_code
from rank_search.tasks import (
    LAYER_ERROR,
    WORST_AGREEMENT,
    WORST_LAYER_ERROR,
    AgreementTask,
    LayerErrorTask,
    Task,
    selection_examples,
    task_errors,
)
from rank_search.training import check_test
from rank_search.trials import TrialContext, dense_measurements, form_ratio

_FORMS: Final = "forms"
_BEFORE: Final = {"priors.importances": "0"}  # what a study did before there was the key, where the default is another
_LONGEST_NAME: Final = 60  # of a folder, whose name may be quoted and holds 255 bytes

_steps: Final = logging.getLogger("rank_search.steps")
_log: Final = logging.getLogger(__name__)


def join_study(
    store: Store, location: str, prepared: Prepared, workbench: TrialContext, accept_changes: bool = False
) -> StudyRecord:
    """The study as the store has it; the dense model is measured only for a new one.

    Args:
        location: of the store, as given.
        accept_changes: see `Store.join`.
    """
    problem = prepared.problem
    study, seen = problem.study, {each.name for each in store.studies()}
    parts = fingerprint(problem)
    if study.name in seen:
        parts = _since(store.study(study.name).fingerprint, parts, study)
    record = StudyRecord(
        name=study.name,
        fingerprint=parts,
        space={
            "study": _as_kept(study),
            "folder": str(study.folder),
            "coordinates": prepared.space.to_json(),
            LAYER_COSTS: {name: asdict(prepared.costs.layer_cost(name, Choice())) for name in problem.inventory.layers},
        },
        objectives=study.search.objectives,
        reference_point={},
        ideal={},
        dense={},
        budget=study.training.epochs,
        priors=tuple(map(_prior_row, prepared.priors)),
        artifacts=_artifacts(study, location, uid := _new_uid(study.name)),
        uid=uid,
    )
    if study.name not in seen:
        tested = study.study.test != "none"
        say_if_no_folder(problem)
        wanted = {**_usual_references(problem), **study.search.reference}
        record = _measured(record, replace(workbench, dense=problem.original), study.search, wanted, tested)
        record = replace(record, space={**record.space, **_timed(prepared, workbench)})
    joined = store.join(record, accept_changes)
    _compare_counts(joined, prepared)
    if study.study.artifacts and not _is_place(joined.artifacts, record.artifacts, study):
        raise StudyMismatchError(
            f"A study's files stay in one place; those of {study.name!r} are in "
            f"{_parent(joined.artifacts) or 'the folder beside its store'}, and [study] artifacts says "
            f"{_parent(record.artifacts)}. "
            "Leave the key out, or give the study another name."
        )
    return joined


def _compare_counts(record: StudyRecord, prepared: Prepared) -> None:
    """Say if the dense model's MACs are not those that the study began with: its trials' would not compare."""
    problem, counted = prepared.problem, prepared.costs.dense["macs"]
    known = record.dense.get("macs", counted)
    if problem.model is problem.original and known != counted:
        _log.warning(
            "The dense model has %s MACs as counted now, and %s in the store: %r was begun with another example, or "
            "by a version that counted otherwise. Its further trials do not compare; begin a study of another name.",
            f"{counted:,}",
            f"{known:,.0f}",
            record.name,
        )


def _usual_references(problem: Problem) -> Mapping[str, float]:
    """The worst worth having of what is 0 for the dense model, so that this says nothing of it."""
    if isinstance(problem.task, LayerErrorTask):
        return {LAYER_ERROR: WORST_LAYER_ERROR * len(problem.inventory.layers)}
    return WORST_AGREEMENT if isinstance(problem.task, AgreementTask) else {}


def _measured(
    record: StudyRecord, workbench: TrialContext, search: SearchSettings, wanted: Mapping[str, float], tested: bool
) -> StudyRecord:
    """The record with the dense model's measurements, and the box that hypervolumes are measured in."""
    _steps.info("Measuring the dense model")
    dense = dense_measurements(workbench)
    search.require_measured(dense)
    if tested:
        check_test(workbench.task)
    say_if_unexportable(workbench.task, workbench.dense)
    with task_errors("meanings()"):
        meanings = {name: said for name, said in workbench.task.meanings().items() if name in dense}
    box = ReferenceBox.of(record.objectives, dense, wanted)
    return replace(
        record,
        dense=dense,
        space={
            **record.space,
            EXAMPLES: selection_examples(workbench.task),
            MEANINGS: meanings,
            **_signal(workbench.task),
        },
        ideal=dict(zip(record.objective_names, box.ideal, strict=True)),
        reference_point=dict(zip(record.objective_names, box.reference, strict=True)),
    )


def _signal(task: Task) -> dict[str, Any]:
    """Of a task whose model stands for one signal: its samples, and what others reach on it."""
    with task_errors("signal_samples() or reference_curves()"):
        samples = task.signal_samples()
        if samples is None:
            return {}
        curves = {name: [dict(point) for point in curve] for name, curve in task.reference_curves().items()}
    return {SIGNAL: {"samples": samples, "curves": curves}}


def _timed(prepared: Prepared, workbench: TrialContext) -> dict[str, Any]:
    """How fast the layers' forms are, if it matters to the study: measured once, so that every driver, now and later,
    takes the same forms for dense."""
    settings = workbench.latency
    if settings is None or settings.slower_forms:
        return {}
    _steps.info("Timing the layers' forms")
    device = next(workbench.dense.parameters()).device

    def ratio(layer: Layer, choice: Choice) -> float | None:
        return form_ratio(layer, workbench.plugins[choice.factorization], choice, settings, device)

    forms = measure_forms(prepared.space.groups, prepared.costs, ratio, prepared.space.round_to)
    _require_possible(prepared, forms)
    return {_FORMS: forms.to_json()}


def _require_possible(prepared: Prepared, forms: Forms) -> None:
    """Refuse constraints that only slower forms keep, before anything is stored."""
    try:
        with_forms(prepared, forms)
    except StudyFileError as error:
        raise StudyFileError(
            f"{error} Forms that are not faster than their layer, as timed here, count as dense where latency matters; "
            "[latency] slower_forms = true allows them."
        ) from error


def forms_of(record: StudyRecord) -> Forms:
    """How fast the layers' forms are, as the study keeps it; empty in one that did not ask, or is older."""
    return Forms.from_json(record.space.get(_FORMS, {}))


def _prior_row(prior: AxisPrior) -> PriorRow:
    return PriorRow(
        layer=prior.layer,
        factorization=prior.factorization,
        axis=prior.axis,
        rank=int(prior.prior),
        full_rank=int(prior.high),
        noise_variance=prior.noise_variance,
        energy_kept=prior.energy_kept,
        break_even=prior.break_even,
    )


def _new_uid(name: str) -> str:
    """A name that no other study of any store has, for the folder of its files."""
    return f"{name[:_LONGEST_NAME]}-{secrets.token_hex(8)}"


def _parent(artifacts: str) -> str:
    """The place of the folder of a study's files."""
    return artifacts.rpartition("/")[0]


def _artifacts(study: Study, location: str, uid: str) -> str:
    """Where the study's files are, for whoever opens the store from wherever; nothing if beside the store itself."""
    given = study.study.artifacts
    if ArtifactStore(given).location != given:
        raise StudyFileError(
            "study.artifacts is kept in the store for all to read, so it holds no credentials; found some. Put them in "
            "the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or fsspec's configuration of every machine."
        )
    if given:
        ArtifactStore(given).check()
        return f"{beside(given, study.folder).rstrip('/')}/{quote(uid, safe=' ')}"
    is_file = locate(location).get_backend_name() == "sqlite"
    return "" if is_file else str(artifact_folder(location, uid, study.folder))


def _is_place(recorded: str, wanted: str, study: Study) -> bool:
    """Whether the study's files are in the folder that the study file says; their own one there has any name.

    A relative folder was once taken from wherever the study was begun.
    """
    folder = _parent(recorded)
    if folder == _parent(wanted):
        return True
    relative = relative_part(study.study.artifacts)
    parts = () if relative is None else tuple(part for part in Path(relative).parts if part != "..")
    return bool(parts) and Path(folder).parts[-len(parts) :] == parts


def _as_kept(study: Study) -> dict[str, Any]:
    """The study file as the store keeps it: without where the store is, which may hold a password, and without what
    says only how trials are run."""
    kept = study.model_dump(mode="json", by_alias=True)
    del kept["launch"], kept["priors"]["memory"]
    for key in ("store", "artifacts"):
        del kept["study"][key]
    for key, usual in (("test", "front"), ("test_share", 0.5)):
        if kept["study"][key] == usual or kept["study"][key] == math.inf:
            del kept["study"][key]  # as in stores from before there were these keys; all of it, if one is asked once
    if kept["search"]["rungs"] is None:
        del kept["search"]["rungs"]  # as in stores from before there were rungs
    if kept["study"]["method"] == "factorized":
        del kept["study"]["method"], kept["overparameterized"]  # the same
    if not kept["latency"]["slower_forms"]:
        del kept["latency"]["slower_forms"]  # as in stores from before forms were timed
    return kept


def fingerprint(problem: Problem) -> dict[str, str]:
    """What the study was made from, part by part: every key but those of [launch] and how long and where it goes
    on; the weights; the files of the task's code; the versions of the plugins.
    """
    study = problem.study
    parts = _parts(study)
    parts["weights"] = problem.weights
    parts |= {f"{CODE}{path}": digest for path, digest in task_code(study).items()}
    return parts | {f"plugin {name}": plugin_version(name, study.folder) for name in problem.plugins}


def _since(older: Mapping[str, str], parts: dict[str, str], study: Study) -> dict[str, str]:
    """The parts without keys that the older record lacks, and that are at their defaults or say what was done before
    there were such keys. Keys within the entries of lists are not told apart.
    """
    needed = {"study": {"name": study.name}, "task": {"factory": study.task.factory}}
    defaults = _parts(Study.model_validate(needed))
    return {
        key: value for key, value in parts.items() if key in older or value not in (defaults.get(key), _BEFORE.get(key))
    }


def _parts(study: Study) -> dict[str, str]:
    kept = _as_kept(study)
    for key in ("trials", "cache", "test", "test_share"):
        kept["study"].pop(key, None)
    return {key: str(value) for table, keys in kept.items() for key, value in _flat(table, keys)}


def _flat(path: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        return [(path, value)]
    return [pair for key, inner in value.items() for pair in _flat(f"{path}.{key}", inner)]

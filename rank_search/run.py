"""Wires the rooms along the path of the data, and nothing else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rank_search.fronts import PriorRow, Store, StudyRecord, TrialRow, artifact_folder
from rank_search.launch import Executor, InProcess, Job, LaunchSettings, Processes, Runner
from rank_search.launch.driver import Driver, Plan
from rank_search.launch.progress import Progress
from rank_search.layers import installed
from rank_search.point import Objective, Outcome, Point
from rank_search.priors import AxisPrior, SpectraCache, axis_priors
from rank_search.search import (
    CostModel,
    Searcher,
    SearchSettings,
    Seed,
    Space,
    build_space,
    check_counted,
    require_possible,
    seed_points,
)
from rank_search.study import Study
from rank_search.subject import Subject, read_subject, resolved
from rank_search.trials import (
    Task,
    Workbench,
    build,
    dense_measurements,
    from_safetensors,
    read_artifact,
    rehearse,
    run_trial,
    test_measurements,
)

_COUNTED = ("params", "macs", "bits", "latency")
_LEFT_BY_TRIALS = (".safetensors", ".coded", ".part")


@dataclass(frozen=True)
class Prepared:
    """All that is made once, in the driver, before the first trial (steps 2 to 7)."""

    subject: Subject
    priors: tuple[AxisPrior, ...]
    space: Space
    costs: CostModel
    seeds: tuple[Seed, ...]
    cache: SpectraCache


@dataclass(frozen=True)
class Result:
    """A study that has run: where its store is, its front, whether it reached its number of trials, and how many
    trials this run added.
    """

    study: StudyRecord
    store: str
    front: tuple[TrialRow, ...]
    complete: bool
    added: int


def prepare(study: Study, task: Task | None = None) -> Prepared:
    """Read the task, the layers, the spectra and the priors, and build the search space.

    Raises:
        TaskError, PluginError, LayerError, StudyFileError: whichever of them cannot be used.
    """
    subject = read_subject(study, task)
    cache = SpectraCache(cache_folder(study))
    priors = layer_priors(subject, cache)
    layers, plugins = subject.inventory.layers, subject.plugins
    space = build_space(layers, plugins, priors, study.search, subject.groups, subject.choices)
    costs = CostModel(layers, plugins, subject.inventory.rest)
    seeds = tuple(seed_points(space, costs, study.search))
    require_possible(study.search.constraints, space, costs, seeds)
    return Prepared(subject, priors, space, costs, seeds, cache)


def layer_priors(subject: Subject, cache: SpectraCache) -> tuple[AxisPrior, ...]:
    """What the weights say about every axis of every layer."""
    found: list[AxisPrior] = []
    for name, layer in subject.inventory.layers.items():
        plugins = {key: subject.plugins[key] for key in subject.choices[name]}
        found += axis_priors(layer, _weight(subject.model, name), plugins, cache)
    return tuple(found)


def run_study(
    study: Study,
    *,
    task: Task | None = None,
    store: str | None = None,
    trials: int | None = None,
    workers: int | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Run a study, or go on with it, until it has its number of finished trials in all.

    Args:
        task: the task, when it is at hand (then the trials run in this process); otherwise the study file's.
        store, trials, workers: instead of the study file's.
        report: told after every trial how far the search is.

    Raises:
        RankSearchError: something of the user's cannot be used, or the store has another study of that name.
    """
    location = store or study.store
    launch = study.launch if workers is None else study.launch.model_copy(update={"workers": workers})
    with _threads(launch.threads if task is None else torch.get_num_threads()):
        prepared = prepare(study, task)
        workbench = make_workbench(prepared.subject, prepared.cache)
        rehearse(workbench.task, workbench.dense, workbench.training)
        with Store.open(location, create=True) as opened:
            record = _joined(opened, prepared, workbench)
            folder = artifact_folder(location, study.name)
            alone = task is not None or (launch.workers == 1 and launch.time_limit is None)
            executor = _in_driver(workbench, folder) if alone else _in_workers(prepared, launch, folder)
            plan = _plan(prepared, record, trials or study.study.trials, folder)
            driver = Driver(opened, record, _searcher(prepared, record), executor, plan, report)
            complete = driver.run()
            _sweep(opened, record, folder)
            _report_on_test(opened, record, workbench, folder)
            return Result(record, location, tuple(opened.front(record)), complete, driver.done_here)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """PyTorch with so many threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _searcher(prepared: Prepared, record: StudyRecord) -> Searcher:
    study = prepared.subject.study
    return Searcher(prepared.space, prepared.costs, study.search, prepared.seeds, record.dense, study.study.seed)


def _in_driver(workbench: Workbench, folder: Path) -> Executor:
    return InProcess(partial(_run, workbench, folder))


def _in_workers(prepared: Prepared, launch: LaunchSettings, folder: Path) -> Executor:
    """Worker processes; the bases are on disk before they start, so that each is decomposed only once."""
    _decompose(prepared)
    make = partial(_make_runner, prepared.subject.study, folder)
    return Processes(make, launch.workers, launch.max_retries, launch.time_limit)


def _decompose(prepared: Prepared) -> None:
    """Decompose every unfolding that a fit may ask for."""
    subject = prepared.subject
    for name, layer in subject.inventory.layers.items():
        bases = prepared.cache.bases(name, _weight(subject.model, name))
        for plugin in subject.choices[name]:
            for axis in subject.plugins[plugin].axes(layer):
                for unfolding in axis.unfoldings:
                    bases(unfolding)


# ---- what trials share -----------------------------------------------------------------------------------


def make_workbench(subject: Subject, cache: SpectraCache) -> Workbench:
    """What all trials in this process share: task, model, layers, plugins, bases."""
    study = subject.study
    wanted = {each.name for each in study.search.objectives} | {each.name for each in study.search.constraints}
    bases = {name: cache.bases(name, _weight(subject.model, name)) for name in subject.inventory.layers}
    return Workbench(
        task=subject.task,
        dense=subject.model,
        layers=subject.inventory.layers,
        plugins=subject.plugins,
        bases=bases.__getitem__,
        training=study.training,
        latency=study.latency if "latency" in wanted else None,
    )


def _make_runner(study: Study, folder: Path) -> Runner:
    """What a worker process does before its first trial."""
    torch.set_num_threads(study.launch.threads)
    workbench = make_workbench(read_subject(study), SpectraCache(cache_folder(study)))
    return partial(_run, workbench, folder)


def _run(workbench: Workbench, folder: Path, job: Job) -> Outcome:
    return run_trial(workbench, job.point, job.rng_seed, folder)


def cache_folder(study: Study) -> Path:
    """Where spectra and bases are kept."""
    if study.study.cache:
        return study.folder / study.study.cache
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rank-search" / "spectra"


def _weight(model: nn.Module, layer: str) -> torch.Tensor:
    weight: torch.Tensor = model.get_submodule(layer).get_parameter("weight")
    return weight.detach()


# ---- the study's record ----------------------------------------------------------------------------------


def _joined(store: Store, prepared: Prepared, workbench: Workbench) -> StudyRecord:
    """The study as the store has it; the dense model is measured only for a new one."""
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
    )
    if study.name not in seen:
        record = _measured(record, workbench, study.search)
    return store.join(record)


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


def _as_kept(study: Study) -> dict[str, Any]:
    """The study file as the store keeps it."""
    return study.model_dump(mode="json")


def fingerprint(subject: Subject) -> dict[str, str]:
    """What the study was made from, part by part: every key but those of [launch] and how long and where it goes
    on; the weights; the versions of the plugins.
    """
    study = subject.study
    kept = _as_kept(study)
    del kept["launch"]
    for key in ("trials", "store", "cache"):
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


# ---- around the search -----------------------------------------------------------------------------------


def _plan(prepared: Prepared, record: StudyRecord, target: int, folder: Path) -> Plan:
    study = prepared.subject.study
    return Plan(
        target=target,
        budget=record.budget,
        rng_seed=study.study.seed,
        constraints=study.search.constraints,
        judge=partial(_judge, prepared, record.dense),
        max_retries=study.launch.max_retries,
        artifacts=folder,
    )


def _judge(prepared: Prepared, dense: Mapping[str, float], point: Point) -> Outcome | None:
    bounds = prepared.subject.study.search.constraints
    return check_counted(bounds, prepared.costs.cost(point), dense) if bounds else None


def _sweep(store: Store, study: StudyRecord, folder: Path) -> None:
    """Remove files that no trial of the store knows: left by a process that was killed.

    The files are listed first: one that another driver adds meanwhile is none of them.
    """
    files = list(folder.iterdir()) if folder.is_dir() else []
    if not files or store.claims(study):
        return
    known = {artifact.location for row in store.trials(study) for artifact in row.artifacts}
    for path in files:
        if path.name not in known and path.suffix in _LEFT_BY_TRIALS:
            path.unlink(missing_ok=True)


def _report_on_test(store: Store, study: StudyRecord, workbench: Workbench, folder: Path) -> None:
    """Measure the front's members on the test data, each once, after the search."""
    for row in store.front(study):
        missing = [name for name in study.dense if name.startswith("test_") and name not in row.measurements]
        if missing:
            store.amend(study, row.number, test_measurements(workbench.task, _model(workbench, row, folder)))


def _model(workbench: Workbench, row: TrialRow, folder: Path) -> nn.Module:
    artifact = next(each for each in row.artifacts if each.kind == "model")
    state = from_safetensors(read_artifact(folder, artifact))
    return build(workbench.dense, row.point, workbench.layers, workbench.plugins, state)

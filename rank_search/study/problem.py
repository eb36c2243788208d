"""Steps 2 to 4 of the data path: the task, its model, the layers in it, and the plugins that may replace them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from rank_search.coding import without_file
from rank_search.errors import StudyMismatchError, TaskError
from rank_search.layers import (
    Example,
    Inventory,
    Plugins,
    Unfolding,
    axes_of,
    copied_to,
    counted_on,
    folded_in,
    load_plugin,
    opened_for,
    opened_inventory,
    require_ordinary,
    resolved,
    run_once,
    taken_together,
    tensors_of,
    with_pools,
)
from rank_search.priors import numbers_of, user_cache_folder
from rank_search.store import StudyRecord
from rank_search.study.factory import load_task
from rank_search.study.file import Study
from rank_search.study.placing import placed
from rank_search.study.without_data import task_of
from rank_search.tasks import LAYER_ERROR, AgreementTask, LayerErrorTask, Task, task_errors, to_device

_steps: Final = logging.getLogger("rank_search.steps")


@dataclass(frozen=True)
class Problem:
    """What a study is about; nothing here depends on where the search goes.

    Attributes:
        model: the network that trials begin from: `original`, or what `overparameterized.started` made of it.
        original: the user's own network, as the task gave it.
        choices: for each layer, the factorizations that may replace it, in the order of the study file.
        groups: layers that share their coordinates, by the group's first layer.
        weights: SHA-256 of the user's own network as the task gave it, before anything ran it.
        examples: what MACs are counted on: the task's example, or all of its examples where they run differently.
    """

    study: Study
    task: Task
    model: nn.Module
    original: nn.Module
    inventory: Inventory
    plugins: Plugins
    choices: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, tuple[str, ...]]
    weights: str
    examples: tuple[Example, ...]

    @property
    def opened(self) -> nn.Module:
        """The model with everything opened that layers are inside of, to watch them; the numbers are the model's."""
        return opened_for(self.model, self.inventory.layers)

    def on_cpu(self) -> Problem:
        """The same on the CPU, for what is exported; itself if it is there."""
        task, here = placed(self.task, self.model, "cpu"), torch.device("cpu")
        if task is self.task:
            return self
        return replace(
            self,
            task=task,
            model=copied_to(self.model, here),
            original=copied_to(self.original, here),
            examples=tuple(to_device(each, here) for each in self.examples),
        )

    def unfoldings(self, layer: str) -> tuple[Unfolding, ...]:
        """Every unfolding of a layer's weight that a fit may ask the basis of."""
        plugins = [self.plugins[name] for name in self.choices[layer]]
        axes = [axis for plugin in plugins for axis in axes_of(plugin, self.inventory.layers[layer])]
        return tuple(unfolding for axis in axes for unfolding in axis.unfoldings)


def read_problem(study: Study, task: Task | None = None, place: int = 0) -> Problem:
    """Make the task, put it on its device, and look at its model.

    Args:
        task: the task, when it is at hand; otherwise the study file's factory makes it.
        place: which one this process is of the workers on the machine, which take its GPUs in turn.

    Raises:
        TaskError, PluginError, LayerError: whichever of them cannot be used.
        LaunchError: the study file names a device that is not here.
    """
    settings = study.layers
    plugins = {name: load_plugin(resolved(name, study.folder)) for name in settings.plugin_names()}
    _steps.info("Reading the task")
    task = task or load_task(study)
    task = placed(task, _model(task), study.launch.device, place)
    model = _model(task)
    weights = _digest(model)
    task = looked_at(task, model, study)
    _steps.info("Looking at the layers")
    examples = counted_on(model, _examples(task))
    inventory = opened_inventory(model, examples[0], settings.include, settings.exclude, examples[1:], settings.split)
    groups = settings.groups(inventory.layers)
    inventory = replace(inventory, layers=with_pools(inventory.layers, groups, plugins))
    choices = taken_together(settings.choices(inventory.layers, plugins), groups, plugins)
    if isinstance(task, LayerErrorTask):
        task = replace(task, layers=inventory.layers)
    begun, inventory = _begun(study, model, inventory, [name for name, own in choices.items() if own])
    return Problem(study, task, begun, model, inventory, plugins, choices, groups, weights, examples)


def study_of(record: StudyRecord, task: Task | None = None) -> Study:
    """The study file of a study in a store, as far as the store keeps it.

    Raises:
        StudyMismatchError: the study was made in Python, so its task has to be handed over.
    """
    kept = record.space["study"]
    if kept["task"]["factory"] == IN_PYTHON and task is None:
        raise StudyMismatchError(
            f"Study {record.name!r} was made in Python from a model in memory, so the store cannot make its task. "
            "Open it from Python, and hand over the same task."
        )
    return Study.kept({**kept, "folder": record.space["folder"]})


def problem_of(record: StudyRecord, task: Task | None = None) -> Problem:
    """The problem of a study in a store, made on the CPU from what the store keeps of its study file.

    Raises:
        StudyMismatchError: the study was made in Python, so its task has to be handed over.
    """
    return read_problem(study_of(record, task).launched({"device": "cpu"}), task)


IN_PYTHON = "(in memory)"
"""Stands for the factory of a task that was handed over from Python."""


def _model(task: Task) -> nn.Module:
    with task_errors("model()"):
        model = task.model()
    if not isinstance(model, nn.Module):
        raise TaskError(f"The task's model() returned {type(model).__name__}; it must return a torch.nn.Module.")
    require_ordinary(model)
    _require_types(model)
    return model.eval()


def _require_types(model: nn.Module) -> None:
    if strange := without_file(model.state_dict()):
        said = ", ".join(f"{name} is {str(dtype).removeprefix('torch.')}" for name, dtype in strange.items())
        raise TaskError(
            f"{said}: the files of trials have no such numbers. Convert them in the task, such as with .to(); keep "
            "complex numbers as the real ones of torch.view_as_real, or buffers that can be made again with "
            "persistent=False."
        )


def _digest(model: nn.Module) -> str:
    """Of its state, without what a lazy layer's first forward sets."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if not is_lazy(tensor):
            found.update(name.encode())
            found.update(numbers_of(tensor))
    return found.hexdigest()


def looked_at(task: Task, model: nn.Module, study: Study) -> Task:
    """The task as far as it may be looked at, and what is made up in the place of the rest.

    Raises:
        SourceError: the source has nothing for such a network.
    """
    data = study.data
    if data.source == "task":
        return task if data.labels else AgreementTask.of(task, model, data.outputs)
    with task_errors("example()"):
        example = task.example()
    return task_of(model, example, data, real=task, seed=study.study.seed, folder=cache_folder(study))


def cache_folder(study: Study) -> Path:
    """Where spectra, bases and inputs that were made are kept."""
    if study.study.cache:
        return study.folder / study.study.cache
    return user_cache_folder()


def measured_alone(tables: Mapping[str, Any], folder: Path) -> str:
    """What trials of a network alone are measured by, first of all, under these tables of a study file.

    Raises:
        TaskError, SourceError: the network cannot be used, or does not run on its example, or the source has nothing
            for it.
    """
    unsaid = {**tables, "search": {"objectives": ["macs"]}, "folder": folder}
    study = Study.model_validate(unsaid)
    found = load_task(study)
    model = _model(found)
    task = looked_at(found, model, study)
    if not isinstance(task, AgreementTask):
        run_once(model, found.example())
        return LAYER_ERROR
    with task_errors("model()"):
        return "kl" if task.gives_classes() else "output_error"


def _begun(study: Study, model: nn.Module, inventory: Inventory, layers: Sequence[str]) -> tuple[nn.Module, Inventory]:
    """What is trained over-parameterized is put together again with weights that nothing computes."""
    if study.study.method != "overparameterized":
        return model, inventory
    return folded_in(model, layers), inventory.folded(layers)


def _examples(task: Task) -> list[Example]:
    with task_errors("example() or examples()"):
        examples = list(task.examples())
    if not examples:
        raise TaskError("The task's examples() returned none; it must return at least one.")
    if strange := [type(each).__name__ for each in examples if not tensors_of(each)]:
        raise TaskError(
            f"The task's example() returned {strange[0]} without a tensor in it; it must return a tensor, a tuple of "
            "tensors (what forward takes by position), or a dictionary of them (by name)."
        )
    return examples

"""Steps 2 to 8 of the data path: all that is made once, in the driver, before the first trial."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from rank_search.options import CostModel, Fits, Forms, OptionTable
from rank_search.priors import AxisPrior, KeptNumbers, SpectraCache, axis_priors
from rank_search.run.pretrain import with_pretrained_model
from rank_search.search import Seed, Space, build_space, require_possible, seed_points
from rank_search.study import Problem, Study, plugin_code, read_problem
from rank_search.tasks import Task, input_moments

Moments = Mapping[str, Tensor]
"""The second moment of each layer's inputs, by layer; nothing where no data was looked at."""

_steps: Final = logging.getLogger("rank_search.steps")


@dataclass(frozen=True)
class Prepared:
    """All that is made once, in the driver, before the first trial (steps 2 to 8).

    Attributes:
        options: what each layer may become, measured; None where neither seed points nor sampler ask for it.
    """

    problem: Problem
    priors: tuple[AxisPrior, ...]
    space: Space
    costs: CostModel
    seeds: tuple[Seed, ...]
    cache: SpectraCache
    moments: Moments
    options: OptionTable | None


Reader = Callable[[Problem, SpectraCache, Moments], tuple[AxisPrior, ...]]
"""Reads the priors of all layers off their spectra."""


def layer_priors(problem: Problem, cache: SpectraCache, moments: Moments) -> tuple[AxisPrior, ...]:
    """What the weights say about every axis of every layer."""
    found: list[AxisPrior] = []
    for name, layer in problem.inventory.layers.items():
        plugins = {key: problem.plugins[key] for key in problem.choices[name]}
        weight, settings = weight_of(problem.model, name), problem.study.priors
        found += axis_priors(layer, weight, plugins, cache, settings, moments.get(name))
    return tuple(found)


def layer_moments(problem: Problem) -> Moments:
    """What each layer sees of the training data, on as many batches as the study file says."""
    batches, seed = problem.study.priors.calibration, problem.study.study.seed
    layers = {name: layer for name, layer in problem.inventory.layers.items() if problem.choices[name]}
    if batches == 0 or not layers:
        return {}
    _steps.info("Looking at what the layers see of the training data")
    return input_moments(problem.task, problem.model, layers, batches, seed)


def begin(study: Study, task: Task | None = None) -> Problem:
    """Read the task and its layers; an over-parameterized network is trained, if the study file asks for one.

    Raises:
        TaskError, PluginError, LayerError, StudyFileError: whichever of them cannot be used.
    """
    return with_pretrained_model(read_problem(study, task), cache_folder(study))


def prepare(study: Study, task: Task | None = None, reader: Reader = layer_priors) -> Prepared:
    """Read the task, the layers, the spectra and the priors, and build the search space.

    Raises:
        TaskError, PluginError, LayerError, StudyFileError: whichever of them cannot be used.
    """
    return prepare_subject(begin(study, task), reader)


def prepare_subject(problem: Problem, reader: Reader = layer_priors) -> Prepared:
    """Read the spectra and the priors of a problem that has been read, and build the search space.

    Raises:
        TaskError, PluginError, StudyFileError: whichever of them cannot be used.
    """
    problem.inventory.require_layers()
    study, cache = problem.study, SpectraCache(cache_folder(problem.study))
    moments = layer_moments(problem)
    _steps.info("Reading the spectra of %d layers", len(problem.inventory.layers))
    priors = reader(problem, cache, moments)
    layers, plugins = problem.inventory.layers, problem.plugins
    space = build_space(layers, plugins, priors, study.search, problem.groups, problem.choices)
    costs = CostModel(layers, plugins, problem.inventory.rest)
    options = _options(problem, space, costs, cache, moments) if study.search.uses_options else None
    seeds = tuple(seed_points(space, costs, study.search, options))
    require_possible(study.search.constraints, space, costs, seeds)
    return Prepared(problem, priors, space, costs, seeds, cache, moments, options)


def _options(problem: Problem, space: Space, costs: CostModel, cache: SpectraCache, moments: Moments) -> OptionTable:
    layers, plugins = problem.inventory.layers, problem.plugins
    weights = {name: weight_of(problem.model, name) for name in layers}
    bases = {name: cache.bases(name, weights[name], moments.get(name)) for name in layers}
    made_by = {name: plugin_code(name, plugin, problem.study.folder) for name, plugin in plugins.items()}

    def kept(layer: str, factorization: str) -> KeptNumbers:
        return cache.numbers(bases[layer], f"errors {layers[layer]} {made_by[factorization]}")

    _steps.info("Fitting what each layer may become")
    fits = Fits(layers, plugins, weights.__getitem__, bases.__getitem__, kept)
    options = OptionTable(space.groups, costs, fits, space.round_to)
    fits.save()
    return options


def with_forms(prepared: Prepared, forms: Forms) -> Prepared:
    """The same, a form that is not faster than its dense layer being taken for dense; with the seed points of that.

    Without forms it is the same.

    Raises:
        StudyFileError: then no point keeps a constraint.
    """
    if not forms.measured:
        return prepared
    search = prepared.problem.study.search
    costs = prepared.costs.with_forms(forms)
    options = None if prepared.options is None else prepared.options.with_costs(costs)
    seeds = tuple(seed_points(prepared.space, costs, search, options))
    require_possible(search.constraints, prepared.space, costs, seeds)
    return replace(prepared, costs=costs, seeds=seeds, options=options)


def cache_folder(study: Study) -> Path:
    """Where spectra and bases are kept."""
    if study.study.cache:
        return study.folder / study.study.cache
    return user_cache_folder()


def user_cache_folder() -> Path:
    """Where spectra and bases are kept if a study says nothing."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rank-search" / "spectra"


def weight_of(model: nn.Module, layer: str) -> torch.Tensor:
    weight: torch.Tensor = model.get_submodule(layer).get_parameter("weight")
    return weight.detach()

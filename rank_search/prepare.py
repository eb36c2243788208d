"""Steps 2 to 7 of the data path: all that is made once, in the driver, before the first trial."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from rank_search.priors import AxisPrior, SpectraCache, axis_priors
from rank_search.search import CostModel, Seed, Space, build_space, require_possible, seed_points
from rank_search.study import Study
from rank_search.subject import Subject, read_subject
from rank_search.trials import Task


@dataclass(frozen=True)
class Prepared:
    """All that is made once, in the driver, before the first trial (steps 2 to 7)."""

    subject: Subject
    priors: tuple[AxisPrior, ...]
    space: Space
    costs: CostModel
    seeds: tuple[Seed, ...]
    cache: SpectraCache


Reader = Callable[[Subject, SpectraCache], tuple[AxisPrior, ...]]
"""Reads the priors of all layers off their spectra."""


def layer_priors(subject: Subject, cache: SpectraCache) -> tuple[AxisPrior, ...]:
    """What the weights say about every axis of every layer."""
    found: list[AxisPrior] = []
    for name, layer in subject.inventory.layers.items():
        plugins = {key: subject.plugins[key] for key in subject.choices[name]}
        found += axis_priors(layer, weight_of(subject.model, name), plugins, cache)
    return tuple(found)


def prepare(study: Study, task: Task | None = None, reader: Reader = layer_priors) -> Prepared:
    """Read the task, the layers, the spectra and the priors, and build the search space.

    Raises:
        TaskError, PluginError, LayerError, StudyFileError: whichever of them cannot be used.
    """
    subject = read_subject(study, task)
    cache = SpectraCache(cache_folder(study))
    priors = reader(subject, cache)
    layers, plugins = subject.inventory.layers, subject.plugins
    space = build_space(layers, plugins, priors, study.search, subject.groups, subject.choices)
    costs = CostModel(layers, plugins, subject.inventory.rest)
    seeds = tuple(seed_points(space, costs, study.search))
    require_possible(study.search.constraints, space, costs, seeds)
    return Prepared(subject, priors, space, costs, seeds, cache)


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

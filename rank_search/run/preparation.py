"""Steps 2 to 8 of the data path: all that is made once, in the driver, before the first trial."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from rank_search.errors import RankSearchError, StudyFileError
from rank_search.layers import Layer, plugin_errors, weight_of
from rank_search.options import (
    CostModel,
    CutMeasure,
    Forms,
    Group,
    OptionTable,
    calibrated,
    fits_of,
    measured_table,
    stored_bits,
)
from rank_search.point import Point
from rank_search.priors import AxisPrior, CachedBases, KeptTensors, PriorSettings, SpectraCache, axis_priors
from rank_search.quantization import latents
from rank_search.run.continuous_points import continuous_points
from rank_search.run.kept_importances import with_learned_importances
from rank_search.run.kept_statistics import training_settings
from rank_search.run.moment_passes import calibrated_layers, calibration_batches, moment_passes
from rank_search.run.pretrain import with_pretrained_model
from rank_search.run.worthwhile import asked_importances
from rank_search.search import CONTINUOUS, Seed, Space, build_space, require_possible, seed_points
from rank_search.study import Problem, Study, cache_folder, read_problem
from rank_search.tasks import (
    AgreementTask,
    LayerErrorTask,
    LayerMoments,
    LossPass,
    Task,
    input_moments,
    loss_moments,
    of_uses,
)

_steps: Final = logging.getLogger("rank_search.steps")
_log: Final = logging.getLogger(__name__)


LayerBases = Mapping[str, CachedBases]
"""The bases of each layer's weight, by layer: the weight hashed and found finite once, decomposed once."""


@dataclass(frozen=True)
class Prepared:
    """All that is made once, in the driver, before the first trial (steps 2 to 8).

    Attributes:
        bases: of every layer that may be factorized, with what is known of its inputs.
        moments: what was seen of the layers, where data was looked at.
        batches: of the training data that were looked at.
        options: what each layer may become, measured; None where neither seed points nor sampler ask for it.
        continuous: points of continuous ranks that are among the seed points, if any were asked for.
    """

    problem: Problem
    priors: tuple[AxisPrior, ...]
    space: Space
    costs: CostModel
    seeds: tuple[Seed, ...]
    bases: LayerBases
    moments: LayerMoments
    batches: int
    options: OptionTable | None
    continuous: tuple[Point, ...] = ()


Reader = Callable[[Problem, LayerBases], tuple[AxisPrior, ...]]
"""Reads the priors of all layers off their spectra."""


def layer_priors(problem: Problem, bases: LayerBases) -> tuple[AxisPrior, ...]:
    """What the weights say about every axis of every layer."""
    found: list[AxisPrior] = []
    for name, layer in problem.inventory.layers.items():
        plugins = {key: problem.plugins[key] for key in problem.choices[name]}
        found += axis_priors(layer, plugins, bases[name], problem.study.priors)
    return tuple(found)


def figures_of(problem: Problem, prior: AxisPrior) -> Mapping[str, float]:
    """What the factorization of an axis says itself of its layer's weight, by name.

    Raises:
        ContractError: it raises.
    """
    plugin, layer = problem.plugins[prior.factorization], problem.inventory.layers[prior.layer]
    with plugin_errors(plugin, "figures()", layer):
        return plugin.figures(layer, weight_of(problem.model, prior.layer))


def layer_bases(problem: Problem, moments: LayerMoments) -> LayerBases:
    """The bases of every layer's weight, looked up in the study's folder of spectra; nothing is decomposed yet.

    Raises:
        LayerError: a weight or a moment has NaN or infinite entries.
    """
    cache = SpectraCache(cache_folder(problem.study), mapped=isinstance(moments.inputs, KeptTensors))
    inputs, gradients = moments.inputs, moments.gradients
    return {
        name: cache.bases(name, weight_of(problem.model, name), inputs.get(name), gradients.get(name), layer.groups)
        for name, layer in problem.inventory.layers.items()
    }


def layer_moments(problem: Problem, batches: int) -> LayerMoments:
    """What each layer sees of so many batches of the training data, and the loss of it."""
    layers = calibrated_layers(problem)
    if isinstance(problem.task, LayerErrorTask):
        return _known(problem.task, problem, layers)
    if batches == 0 or not layers:
        return LayerMoments()
    passes = moment_passes(problem, layers)
    _steps.info("Looking at what the layers see of the training data: %s", passes.said(batches))
    if not passes.is_mapped:
        return _seen(problem, layers, batches)
    inputs, gradients = (KeptTensors(cache_folder(problem.study)) for _ in range(2))
    for part in passes.parts:
        found = _seen(problem, part, batches)
        inputs.add(found.inputs)
        gradients.add(found.gradients)
    return LayerMoments(inputs, gradients)


def _known(task: LayerErrorTask, problem: Problem, layers: Mapping[str, Layer]) -> LayerMoments:
    """Without a batch."""
    found = {name: each for name, each in task.known_moments.items() if name in layers}
    return of_uses(LayerMoments(found), problem.opened, layers)


def _seen(problem: Problem, layers: Mapping[str, Layer], batches: int) -> LayerMoments:
    """In one pass."""
    task, model, seed = problem.task, problem.opened, problem.study.study.seed
    settings = problem.study.priors
    if settings.metric == "loss":
        _require_gradients(task, settings)
        seen = loss_moments(task, model, layers, batches, seed, settings.targets == "sampled")
    else:
        seen = LayerMoments(input_moments(task, model, layers, batches, seed))
    return of_uses(seen, model, layers)


def _require_gradients(task: Task, settings: PriorSettings) -> None:
    if isinstance(task, AgreementTask) and settings.targets == "labels":
        raise StudyFileError(
            '[priors] metric = "loss" with targets = "labels" takes gradients of the loss, and that of agreement has '
            'none at the dense model. Set targets = "sampled".'
        )


def sequential_pass(problem: Problem, batches: int) -> LossPass | None:
    """The batches that trials fit their layers on in order; None where the study file does not ask for that."""
    study = problem.study
    if not study.priors.sequential or not batches:
        return None
    asked = training_settings(problem).norm_batches
    norms = batches if asked is None else min(asked, batches)
    found = LossPass(problem.task, batches, study.study.seed, norms)
    return replace(found, known_order=tuple(found.order(problem.opened, calibrated_layers(problem))))


def begin(study: Study, task: Task | None = None, place: int = 0) -> Problem:
    """Read the task and its layers; an over-parameterized network is trained, if the study file asks for one.

    Args:
        task, place: see `read_problem`.

    Raises:
        TaskError, PluginError, LayerError, StudyFileError: whichever of them cannot be used.
    """
    return with_pretrained_model(read_problem(study, task, place), cache_folder(study))


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
    if not problem.study.search.entropy.is_on or not latents(problem.model):
        problem.inventory.require_layers()
    study, layers, plugins = problem.study, problem.inventory.layers, problem.plugins
    batches = calibration_batches(problem)
    moments = layer_moments(problem, batches)
    bases = layer_bases(problem, moments)
    _steps.info("Reading the spectra of %d layers", len(layers))
    priors = reader(problem, bases)
    space = build_space(layers, plugins, priors, study.search, problem.groups, problem.choices)
    costs = CostModel(layers, plugins, problem.inventory.rest, asked=study.search.asked)
    measured = study.search.uses_options and space.groups
    options = _searched_options(problem, space.groups, bases, batches) if measured else None
    continuous = _continuous(problem, space, options, batches)
    seeds = tuple(seed_points(space, costs, study.search, options, continuous))
    require_possible(study.search.constraints, space, costs, seeds)
    return Prepared(problem, priors, space, costs, seeds, bases, moments, batches, options, continuous)


def _continuous(problem: Problem, space: Space, options: OptionTable | None, batches: int) -> tuple[Point, ...]:
    """As many as the seed points ask for; with the sampler of that name, as there are trials left for them."""
    study, search = problem.study, problem.study.search
    if options is None:
        return ()
    count = search.seeds.continuous
    if search.sampler == CONTINUOUS:
        count = max(count, study.study.trials - len(seed_points(space, options.costs, search, options)))
    return continuous_points(problem, options, count, batches, cache_folder(study))


def _searched_options(problem: Problem, groups: Iterable[Group], bases: LayerBases, batches: int) -> OptionTable:
    """The option table, with importances where they are asked for, or worthwhile."""
    table = option_table(problem, groups, bases, batches, problem.study.search.asked)
    try:
        count = asked_importances(problem, table, batches)
        return with_learned_importances(problem, table, count, cache_folder(problem.study))
    except RankSearchError as error:
        if problem.study.priors.importances != "auto":
            raise
        _log.warning("Each layer's errors count as they are, since their importances cannot be learned: %s", error)
        return table


def option_table(
    problem: Problem, groups: Iterable[Group], bases: LayerBases, batches: int, asked: Iterable[str]
) -> OptionTable:
    """What each group of layers may become, every error measured.

    Args:
        batches: those that cuts are measured on.
        asked: the measurements by which forms are judged, see `judged_costs`.
    """
    _steps.info("Fitting what each layer may become")
    study, layers, plugins = problem.study, problem.inventory.layers, problem.plugins
    costs = CostModel(layers, plugins, problem.inventory.rest, asked=asked)
    fits = fits_of(layers, plugins, bases, study.folder)
    table = measured_table(groups, costs, fits, study.search.round_to, stored_bits(problem.model))
    settings = study.priors
    if settings.cuts and batches:
        _steps.info("Measuring %d cuts of each of %d layers or groups of layers", settings.cuts, len(table.of))
        measure = CutMeasure(problem.task, problem.model, bases, batches, study.study.seed)
        table = calibrated(table, measure, settings.cuts)
    return table


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
    seeds = tuple(seed_points(prepared.space, costs, search, options, prepared.continuous))
    require_possible(search.constraints, prepared.space, costs, seeds)
    return replace(prepared, costs=costs, seeds=seeds, options=options)

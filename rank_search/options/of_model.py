"""The option table of a model in memory: what each layer may become, with its cost and its error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from torch import Tensor, nn

from rank_search.errors import LayerError, TaskError
from rank_search.layers import (
    Example,
    Layer,
    LayersSettings,
    Plugins,
    load_plugin,
    opened_for,
    opened_inventory,
    plugin_code,
    pool_names,
    taken_together,
    weight_of,
    with_pools,
)
from rank_search.options.cost_model import CostModel
from rank_search.options.cuts import CutMeasure, calibrated
from rank_search.options.fits import Fits
from rank_search.options.grouping import build_groups
from rank_search.options.ranges import Group
from rank_search.options.shares import loss_shares
from rank_search.options.table import OptionTable
from rank_search.priors import CachedBases, KeptNumbers, SpectraCache, user_cache_folder
from rank_search.tasks import LayerMoments, LossAlone, LossOf, inputs_in, loss_moments, moments_of_inputs, of_uses

LOOKED_AT: Final = 16
"""Batches that are looked at, at most: to know the inputs of the layers, and to take batch norms' statistics again."""


def options(
    model: nn.Module,
    batches: Iterable[Any] | None = None,
    *,
    example: Example,
    layers: LayersSettings | Mapping[str, Any] | None = None,
    round_to: int = 1,
    cache: str | Path | bool = False,
    loss: LossOf | None = None,
    sampled_loss: LossOf | None = None,
    cuts: int = 0,
) -> OptionTable:
    """What each layer of a model may become: forms on a grid, each with its counted cost and its output error.

    Every weight is decomposed once; all fits are slices of that. The error of a form is E‖Wx − W'x‖² / E‖Wx‖² over the
    inputs x that the layer sees in the batches, without batches ‖W − W'‖² / ‖W‖². Seconds for a network of some million
    parameters. Nothing is trained, and no label is looked at unless a loss is given: then fits and errors are those of
    the loss, as far as the moments of its gradients at the layers' outputs tell (see `loss_moments`), and a layer's
    errors are times its share of it.

    Args:
        model: the trained model; it is not changed.
        batches: inputs, or pairs of inputs and targets as a DataLoader gives them, or dictionaries, labels and all; the
            first `LOOKED_AT` of them are run through the model in evaluation mode. Some hundred examples are enough.
        example: what one forward takes, as a batch of 1: a tensor, a tuple by position, or a dictionary by name.
        layers: the table `[layers]` of a study file as a dictionary: `include` and `exclude` globs, `factorizations`,
            `rules`, `tie`. Default: every layer as `svd` or `tucker2`.
        round_to: ranks are multiples of this, for hardware.
        cache: a folder in which decompositions and errors are kept for the next call; True: the one of the studies.
        loss: of the model on a batch, such as `lambda model, batch: cross_entropy(model(batch[0]), batch[1])`: a scalar
            with a gradient. It is given the batches as they are.
        sampled_loss: the same with targets drawn from the model's own predictions instead of labels: gradients are then
            of this one (see `Task.sampled_loss`), and `loss` is only for `cuts`. Of logits it is
            `cross_entropy(logits, torch.distributions.Categorical(logits=logits).sample())`.
        cuts: so many cuts of each layer alone are measured by the loss, one evaluation of the batches each, and say how
            much its errors count (see `calibrated`).

    Raises:
        LayerError: nothing can be factorized, a glob matches no layer, a weight holds NaN or infinity, there are
            cuts without a loss, or a loss without batches.
        TaskError: the model does not run on the example or the batches.
        PluginError: a factorization cannot be used.

    >>> import torch
    >>> table = options(nn.Sequential(nn.Linear(64, 64), nn.ReLU()), example=torch.zeros(1, 64))
    >>> [option.params for option in table][:3], len(table.of)
    ([4160, 192, 320], 1)
    """
    _check_loss(batches, loss, sampled_loss, cuts)
    settings = _settings(layers)
    plugins = {name: load_plugin(name) for name in settings.plugin_names()}
    inventory = opened_inventory(model, example, settings.include, settings.exclude, split=settings.split)
    inventory.require_layers()
    ties = settings.groups(inventory.layers)
    inventory = replace(inventory, layers=with_pools(inventory.layers, ties, plugins))
    choices = taken_together(settings.choices(inventory.layers, plugins), ties, plugins)
    groups = build_groups(inventory.layers, plugins, ties, choices)
    chosen = {name: inventory.layers[name] for group in groups for name in group.layers}
    some = [] if batches is None else list(islice(batches, LOOKED_AT))
    led_back = loss if sampled_loss is None else sampled_loss
    task = None if led_back is None else LossAlone(model, example, some, led_back)
    seen = LayerMoments() if batches is None else _seen(opened_for(model, chosen), chosen, some, example, task)
    spectra = SpectraCache(_folder(cache))
    bases = {
        name: spectra.bases(name, weight_of(model, name), seen.inputs.get(name), seen.gradients.get(name), layer.groups)
        for name, layer in chosen.items()
    }
    fits = fits_of(inventory.layers, plugins, bases, Path.cwd(), example)
    costs = CostModel(inventory.layers, plugins, inventory.rest)
    table = measured_table(groups, costs, fits, round_to, stored_bits(model))
    if loss is None or not cuts:
        return table
    return calibrated(table, CutMeasure(LossAlone(model, example, some, loss), model, bases, len(some)), cuts)


def fits_of(
    layers: Mapping[str, Layer],
    plugins: Plugins,
    bases: Mapping[str, CachedBases],
    folder: Path,
    example: Example | None = None,
) -> Fits:
    """The fits of these layers, whose errors are kept beside the spectra.

    Args:
        folder: relative to which plugins in files are named.
    """
    made_by = {name: plugin_code(name, plugin, folder) for name, plugin in plugins.items()}

    def kept(layer: str, factorization: str) -> KeptNumbers:
        pool = pool_names(layers[layer], plugins[factorization])
        together = "" if len(pool) == 1 else f" with {[(str(layers[name]), bases[name].key.hex()) for name in pool]}"
        return bases[layer].numbers(f"errors {layers[layer]} {made_by[factorization]}{together}")

    def weights(layer: str) -> Tensor:
        return bases[layer].weight

    return Fits(layers, plugins, weights, bases.__getitem__, kept, example).with_shares(loss_shares(bases))


def _seen(
    model: nn.Module,
    layers: Mapping[str, Layer],
    batches: list[Any],
    example: Example,
    task: LossAlone | None,
) -> LayerMoments:
    if task is None:
        seen = LayerMoments(moments_of_inputs(model, layers, inputs_of(batches, example)))
    else:
        seen = loss_moments(task, model, layers, len(batches))
    return of_uses(seen, model, layers)


def measured_table(
    groups: Iterable[Group], costs: CostModel, fits: Fits, round_to: int, dense_bits: int
) -> OptionTable:
    """The table with every error measured, and kept for the next time."""
    table = OptionTable(groups, costs, fits, round_to, dense_bits)
    fits.save()
    return table


def stored_bits(model: nn.Module) -> int:
    """Of all parameters as they are stored, each tensor once."""
    return sum(8 * each.numel() * each.element_size() for each in model.parameters())


def inputs_of(batches: Iterable[Any], example: Example | None) -> Iterator[Example]:
    """The inputs of the first `LOOKED_AT` batches, without the targets.

    Raises:
        TaskError: a batch is no input of the model (see `inputs_in`), or there is none.
    """
    empty = True
    for batch in islice(batches, LOOKED_AT):
        empty = False
        yield inputs_in(batch, example)
    if empty:
        raise TaskError("The batches are empty. Are they an iterator that was used up before? Hand over a list.")


def _check_loss(batches: Iterable[Any] | None, loss: LossOf | None, sampled_loss: LossOf | None, cuts: int) -> None:
    if cuts < 0:
        raise LayerError(f"cuts is {cuts}; it is how often each layer is cut alone, 0 or more.")
    if cuts and loss is None:
        raise LayerError(f"cuts = {cuts} measures the loss, and none is given. Hand over loss=, or leave cuts out.")
    if batches is None and (loss is not None or sampled_loss is not None):
        raise LayerError("A loss is given, and no batches to take it on. Hand over batches=, or leave the loss out.")


def _folder(cache: str | Path | bool) -> Path | None:
    if isinstance(cache, bool):
        return user_cache_folder() if cache else None
    return Path(cache)


def _settings(layers: LayersSettings | Mapping[str, Any] | None) -> LayersSettings:
    if isinstance(layers, LayersSettings):
        return layers
    if not isinstance(layers, Mapping | None):
        raise LayerError(
            f"layers= is {type(layers).__name__}; it is the table [layers] of a study file as a dictionary, such as "
            '{"exclude": ["head"]}.'
        )
    try:
        return LayersSettings.model_validate(dict(layers or {}))
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise LayerError(
            f"layers= is wrong: {lines}. It takes the keys of [layers] (docs/study-file.md): "
            f"{', '.join(LayersSettings.model_fields)}."
        ) from None

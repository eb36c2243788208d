"""Errors calibrated on the network's own loss: measured cuts of single layers say how much each layer counts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final, final

from torch import nn

from rank_search.layers import factorize
from rank_search.options.fits import rounded
from rank_search.options.table import Option, OptionTable
from rank_search.point import Point
from rank_search.priors import CachedBases, digest
from rank_search.quantization import reestimate_batchnorm
from rank_search.tasks import Task, mean_loss, seeded

LEAST_RISE: Final = 1 / 30
"""Of the median rise: a smaller one, or a loss that falls, is noise."""


@final
@dataclass(frozen=True, eq=False)
class CutMeasure:
    """How far the loss rises when one layer is cut, measured and kept.

    Attributes:
        task, model: whose loss, on the first batches of a training pass.
        bases: of the layers' weights, beside which rises are kept for the next run.
        batches, rng_seed: as calibration has them; batch norms take their statistics again on the same batches.
    """

    task: Task
    model: nn.Module
    bases: Mapping[str, CachedBases]
    batches: int
    rng_seed: int = 0

    def rises(self, table: OptionTable, options: Sequence[Option]) -> Iterator[float]:
        """Of the loss, for each of the options alone.

        One evaluation each, unless it is kept, and one of the dense model.

        Raises:
            TaskError: the task raises, or has no training data.
        """
        dense = self._loss(self.model)
        model = digest(dict(self.model.state_dict())).hex()
        for option in options:
            about = f"rise-1 {option.to_json()} {model} {dense:.6g} {self.batches}"
            kept = self.bases[next(iter(option.choices))].numbers(about)
            yield kept.get((0.0,), lambda option=option: self._cut(table, option) - dense)  # type: ignore[misc]
            kept.save()

    def _cut(self, table: OptionTable, option: Option) -> float:
        fits = table.fits
        made = factorize(self.model, Point(option.choices), fits.layers, fits.plugins, fits.bases)
        with seeded(self.rng_seed):
            reestimate_batchnorm(self.task, made, self.batches)
        return self._loss(made)

    def _loss(self, model: nn.Module) -> float:
        return mean_loss(self.task, model, self.batches, self.rng_seed)


def calibrated(table: OptionTable, measure: CutMeasure, count: int) -> OptionTable:
    """The table with each group's errors times what its measured cuts say of them; their mean share stays 1.

    Symbols: of group g the cuts k = 1 … count are the closest options with at most k/(count + 1) of its parameters;
    ρ_gk is the rise of the loss with that cut alone, e_gk the option's error. All errors of g are multiplied by the
    geometric mean of ρ_gk/e_gk over k. A curve keeps its form: how the fits of one layer compare the errors say well,
    how layers compare they do not. Rises below `LEAST_RISE` of the median count as that; a group without a cut that has
    an error, as the median group.
    """
    cuts = [(name, option) for name in table.of for option in _cuts(table.of[name], count)]
    found = list(measure.rises(table, [option for _, option in cuts]))
    positive = [rise for rise in found if rise > 0 and math.isfinite(rise)]
    if not positive:
        return table
    least = LEAST_RISE * median(positive)
    logarithms: dict[str, list[float]] = {}
    for (name, option), rise in zip(cuts, found, strict=True):
        worth = max(least, rise) if math.isfinite(rise) else max(positive)
        logarithms.setdefault(name, []).append(math.log(worth / option.error))
    factors = {name: math.exp(fmean(each)) for name, each in logarithms.items()}
    usual = median(factors.values())
    before = table.fits.shares
    shares = {
        layer: before.get(layer, 1.0) * factors.get(name, usual)
        for name, options in table.of.items()
        for layer in options[0].choices
    }
    mean = fmean(shares.values())
    return table.with_shares({layer: rounded(share / mean) for layer, share in shares.items()})


def _cuts(options: Sequence[Option], count: int) -> list[Option]:
    """Different ones, with an error, each the closest within its share of the group's parameters."""
    most = [options[0].params * (count - number) / (count + 1) for number in range(count)]
    within = ([each for each in options[1:] if each.params <= limit and each.error > 0] for limit in most)
    closest = (min(each, key=lambda option: option.error) for each in within if each)
    return list({id(option): option for option in closest}.values())

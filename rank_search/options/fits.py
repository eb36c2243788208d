"""How far the outputs of a layer are off under each choice: each fit is made once, and remembered between runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

import torch
from torch import Tensor

from rank_search.layers import (
    Bases,
    Example,
    Factorization,
    Layer,
    fit_together,
    output_error,
    plugin_errors,
    pool_names,
    share,
)
from rank_search.point import Choice
from rank_search.priors import KeptNumbers

DIGITS: Final = 5  # of a relative error: two machines agree on these

_log = logging.getLogger(__name__)

ErrorOf = Callable[[str, Choice], float]
"""The relative output error of a layer under a choice."""

KeptOf = Callable[[str, str], KeptNumbers]
"""Where the errors of a layer's fits are kept, by the layer's name and the factorization's."""


def _nowhere(layer: str, factorization: str) -> KeptNumbers:
    return KeptNumbers()


@final
class Fits:
    """Relative output errors of fits, each made once.

    Args:
        layers: what may be factorized, by name.
        plugins: factorization classes by name.
        weights, bases: of a layer, by its name.
        kept: where errors are looked up before a fit is made, and kept by `save`; by default, nowhere.
        example: what a forward of the model takes, for whoever runs it on batches.

    Attributes:
        shares: how much a layer's errors count, 1 where it is not here: see `with_shares`.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        plugins: Mapping[str, type[Factorization]],
        weights: Callable[[str], Tensor],
        bases: Callable[[str], Bases],
        kept: KeptOf = _nowhere,
        example: Example | None = None,
    ) -> None:
        self.example = example
        self.layers, self.plugins, self.weights, self.bases = layers, plugins, weights, bases
        self._totals: dict[str, float] = {}
        self._of_pools: dict[tuple[str, str], Mapping[str, float]] = {}
        self.shares: Mapping[str, float] = {}
        self._kept_of = kept
        self._kept: dict[tuple[str, str], KeptNumbers] = {}
        self._said: set[tuple[str, str]] = set()

    def __call__(self, layer: str, choice: Choice) -> float:
        """E‖Wx − W'x‖² / E‖Wx‖² in the metric of the layer's bases, times the layer's share of the loss.

        0 for dense, and where the outputs are zero anyway. Infinite for a fit with numbers that are not finite, which
        the log says once for each layer and factorization.

        Raises:
            ContractError: the plugin raises.
        """
        if choice.is_dense:
            return 0.0
        key = layer, choice.factorization
        if key not in self._kept:
            self._kept[key] = self._kept_of(*key)
        values = tuple(float(choice.values[name]) for name in sorted(choice.values))
        error = self._kept[key].get(values, lambda: self._measured(layer, choice))
        if not math.isfinite(error):
            self._say_lost(key, choice)
            return math.inf
        share = self.shares.get(layer, 1.0)
        return error if share == 1.0 else rounded(error * share)

    def with_shares(self, shares: Mapping[str, float]) -> Fits:
        """The same, the errors of some layers times a factor: how much more they count than those of others."""
        fits = Fits(self.layers, self.plugins, self.weights, self.bases, self._kept_of, self.example)
        fits.shares = dict(shares)
        fits._kept, fits._totals, fits._of_pools, fits._said = self._kept, self._totals, self._of_pools, self._said
        return fits

    def weight(self, layer: str, choice: Choice) -> Tensor:
        """The weight that a layer has under a choice: its own, or what the form that is fitted to it stands for.

        Raises:
            ContractError: the plugin raises.
        """
        return self.weights(layer) if choice.is_dense else self.forms(layer, choice)[layer].dense().detach()

    def forms(self, layer: str, choice: Choice) -> Mapping[str, Factorization]:
        """The form that a choice other than dense stands for, fitted; with those of the layers it is shared with.

        Raises:
            ContractError: the plugin raises.
        """
        names = pool_names(self.layers[layer], self.plugins[choice.factorization])
        return self._fitted(names, choice)

    def save(self) -> None:
        """Keep what has been measured for the next run."""
        for each in self._kept.values():
            each.save()

    def _measured(self, layer: str, choice: Choice) -> float:
        names = pool_names(self.layers[layer], self.plugins[choice.factorization])
        if len(names) == 1:
            return self._error_of(layer, self._dense(names, choice)[layer])
        key = names[0], repr(choice.to_json())
        if key not in self._of_pools:
            fitted = self._dense(names, choice)
            self._of_pools[key] = {name: self._error_of(name, fitted[name]) for name in names}
        return self._of_pools[key][layer]

    @torch.no_grad()
    def _dense(self, names: Sequence[str], choice: Choice) -> Mapping[str, Tensor]:
        """What the forms of these layers stand for."""
        with plugin_errors(self.plugins[choice.factorization], "fit()", self.layers[names[0]]):
            return {name: form.dense() for name, form in self._fitted(names, choice).items()}

    @torch.no_grad()
    def _fitted(self, names: Sequence[str], choice: Choice) -> Mapping[str, Factorization]:
        """The forms of these layers, fitted together."""
        weights, bases = [self.weights(name) for name in names], [self.bases(name) for name in names]
        plugin = self.plugins[choice.factorization]
        with plugin_errors(plugin, "fit()", self.layers[names[0]]):
            forms = [plugin(self.layers[name], **choice.values) for name in names]
            for form, weight in zip(forms, weights, strict=True):
                if weight.device != torch.get_default_device():  # of a small one it takes as long as the fit
                    form.to(weight.device)
            share(forms)
            fit_together(forms, weights, bases)
            return dict(zip(names, forms, strict=True))

    def _error_of(self, layer: str, fitted: Tensor) -> float:
        weight, bases = self.weights(layer), self.bases(layer)
        if layer not in self._totals:
            self._totals[layer] = error_between(weight, torch.zeros_like(weight), bases)
        return rounded(relative_error(error_between(weight, fitted, bases), self._totals[layer]))

    def _say_lost(self, key: tuple[str, str], choice: Choice) -> None:
        if key not in self._said:
            self._said.add(key)
            _log.warning(
                "Layer %r as %s with %s: the fit has NaN or infinite numbers, so that form is left out.",
                *key,
                ", ".join(f"{name} = {value:g}" for name, value in choice.values.items()) or "no axis",
            )


def relative_error(error: float, total: float) -> float:
    """An error as a share of that of a layer whose outputs are all lost; never below 0.

    Edge cases: 0 where the total is 0; infinite where either of them is NaN or infinite.

    >>> relative_error(1.0, 4.0), relative_error(-1e-9, 4.0), relative_error(math.nan, 4.0), relative_error(1.0, 0.0)
    (0.25, 0.0, inf, 0.0)
    """
    if not (math.isfinite(error) and math.isfinite(total)):
        return math.inf
    return max(0.0, error / total) if total > 0 else 0.0


def error_between(weight: Tensor, other: Tensor, bases: Bases) -> float:
    """How far one weight is from another in the metric of these bases: of the loss, the outputs, or the weights."""
    weighed = bases.weighed
    return output_error(weight, other, bases.moment) if weighed is None else weighed.error(weight, other)


def rounded(error: float) -> float:
    """To so many digits as two machines agree on."""
    return float(f"{error:.{DIGITS}g}")

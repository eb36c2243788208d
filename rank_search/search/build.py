"""Step 8 of the data path: axes and priors become a search space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rank_search.layers import Factorization, Layer
from rank_search.options import build_groups, possible_groups
from rank_search.priors import AxisPrior
from rank_search.search.settings import SearchSettings
from rank_search.search.space import Space


def build_space(
    layers: Mapping[str, Layer],
    plugins: Mapping[str, type[Factorization]],
    priors: Iterable[AxisPrior],
    settings: SearchSettings,
    groups: Mapping[str, Sequence[str]] | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> Space:
    """The space of all choices for these layers.

    A layer that no factorization is allowed for, or none applies to, is left out: it stays dense. With an entropy
    penalty all of them may be: then its strength is what is searched.

    Args:
        layers, plugins, groups, choices: as in `build_groups`.
        priors: what the weights say about every axis of every factorization that may be chosen.

    Raises:
        LayerError: tied layers have no factorization in common, or there is nothing to search.
    """
    known = {(prior.layer, prior.factorization, prior.axis): prior.prior for prior in priors}
    of_layers = possible_groups if settings.entropy.is_on else build_groups
    searched = of_layers(layers, plugins, groups, choices, known)
    return Space(searched, settings.weakening, settings.multiplier, settings.round_to, settings.penalties)

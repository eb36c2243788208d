"""Optuna's samplers by name, made so that they always search the whole, fixed space."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any, Final

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from rank_search.basics import nearest

Distributions = dict[str, BaseDistribution]


class _FixedSpace(BaseSampler):
    """Told which coordinates to search jointly, instead of intersecting those of all past trials at each ask.

    With 60 coordinates and 2,000 trials the intersection would take longer than everything else.
    """

    searched: Distributions

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        return self.searched


class FixedTPE(_FixedSpace, TPESampler):
    """Tree-structured Parzen estimator."""


class FixedNSGAII(_FixedSpace, NSGAIISampler):
    """Non-dominated sorting genetic algorithm II."""


class FixedNSGAIII(_FixedSpace, NSGAIIISampler):
    """Non-dominated sorting genetic algorithm III."""


class FixedGP(_FixedSpace, GPSampler):
    """Gaussian process."""


SAMPLERS: Final[Mapping[str, type[BaseSampler]]] = {
    "tpe": TPESampler,
    "nsga2": NSGAIISampler,
    "nsga3": NSGAIIISampler,
    "gp": GPSampler,
    "random": RandomSampler,
    "bolaco": GPSampler,
}

BOLACO: Final = "bolaco"
"""Optuna's Gaussian process on other coordinates: see `rank_search.search.kept_shares`."""

AUTO: Final = "auto"
"""The sampler that is not Optuna's: see `rank_search.search.auto`."""

CONTINUOUS: Final = "continuous"
"""`auto` after as many continuous ranks as there are trials: see `rank_search.continuous`."""

RANDOM: Final = "random"
TPE: Final = "tpe"

NAMES: Final = (AUTO, *SAMPLERS, CONTINUOUS)

_FIXED: Final[Mapping[str, type[_FixedSpace]]] = {
    "tpe": FixedTPE,
    "nsga2": FixedNSGAII,
    "nsga3": FixedNSGAIII,
    "gp": FixedGP,
    "bolaco": FixedGP,
}

# Multivariate TPE is faster and was better relative to one prior; small populations suit short searches.
_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "tpe": {"multivariate": True},
    "nsga2": {"population_size": 24},
    "nsga3": {"population_size": 24},
    "gp": {},
    "random": {},
    "bolaco": {},
}

_KINDS: Final[Mapping[str, tuple[str, tuple[type, ...]]]] = {
    "int": ("a whole number", (int,)),
    "float": ("a number", (int, float)),
    "bool": ("true or false", (bool,)),
}


def make_sampler(name: str, options: Mapping[str, Any], rng_seed: int, searched: Distributions) -> BaseSampler:
    """A fresh sampler with its own rng; it keeps nothing between trials that its study does not hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if name not in _FIXED:
            return SAMPLERS[name](**options, seed=rng_seed)  # type: ignore[call-arg]
        sampler = _FIXED[name](**{**_DEFAULTS[name], **options}, seed=rng_seed)  # type: ignore[call-arg]
    sampler.searched = searched
    return sampler


def searched(distributions: Distributions) -> Distributions:
    """Those that leave a choice, by name."""
    return {name: each for name, each in sorted(distributions.items()) if not each.single()}


def starting_options(name: str, options: Mapping[str, Any], seeds: int) -> dict[str, Any]:
    """The options, with no more random trials at the start than there are seed points (10 without any)."""
    if "n_startup_trials" in known_options(name) and seeds:
        return {"n_startup_trials": min(10, seeds), **options}
    return dict(options)


def known_options(name: str) -> dict[str, str]:
    """What the sampler takes from a study file, each with the name of its type: numbers and switches."""
    if name == AUTO:
        return {}
    if name == CONTINUOUS:
        return {"steps": "int", "mixtures": "bool"}
    parameters = inspect.signature(SAMPLERS[name]).parameters.values()
    kinds = {each.name: inspect.formatannotation(each.annotation).strip("'") for each in parameters}
    plain = {option: kind.removesuffix(" | None") for option, kind in kinds.items()}
    return {option: kind for option, kind in plain.items() if kind in _KINDS and option != "seed"}


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that the sampler does not take.

    Raises:
        ValueError: an unknown option (with the nearest known one), or a value that the sampler refuses.
    """
    known = known_options(name)
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"the sampler {name!r} has no option {option!r}{nearest(option, known)}")
        kind, types = _KINDS[known[option]]
        if not isinstance(value, types) or (isinstance(value, bool) and known[option] != "bool"):
            raise ValueError(f"the option {option!r} of the sampler {name!r} is {kind}; found {value!r}")
    if name in (AUTO, CONTINUOUS):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            make_sampler(name, options, 0, {})
    except (TypeError, ValueError, FutureWarning) as error:
        raise ValueError(f"the sampler {name!r} refuses its options {dict(options)}: {error}") from error

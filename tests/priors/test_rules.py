"""The rules of rank priors against loops, and the settings that choose among them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rank_search.priors import PriorSettings
from rank_search.priors.rules import energy_rank, tail_rank, vbmf_rank
from rank_search.priors.spectrum import Spectrum
from rank_search.priors.vbmf import vbmf

values = st.lists(st.floats(0, 100), min_size=1, max_size=12).map(lambda drawn: sorted(drawn, reverse=True))
levels = st.floats(0.01, 0.99)


def spectrum(found: list[float]) -> Spectrum:
    return Spectrum(np.array(found), len(found), len(found) + 3)


def tails(found: list[float]) -> list[float]:
    """The relative error of each rank from 0 on."""
    total = math.fsum(g * g for g in found)
    return [math.sqrt(math.fsum(g * g for g in found[rank:]) / total) for rank in range(len(found) + 1)]


@given(values, levels)
def test_tail_rank_is_the_first_rank_that_is_good_enough(found: list[float], level: float) -> None:
    rank = tail_rank(spectrum(found), level)
    if math.fsum(g * g for g in found) == 0:
        assert rank == 0
        return
    relative = tails(found)
    assert relative[rank] <= level + 1e-9
    assert rank == 0 or relative[rank - 1] > level - 1e-9


@given(values, levels)
def test_energy_rank_keeps_the_share(found: list[float], level: float) -> None:
    rank = energy_rank(spectrum(found), level)
    total = math.fsum(g * g for g in found)
    if total == 0:
        assert rank == 0
        return
    kept = [math.fsum(g * g for g in found[:r]) / total for r in range(len(found) + 1)]
    assert kept[rank] >= level - 1e-9
    assert rank == 0 or kept[rank - 1] < level + 1e-9


@given(values, st.tuples(levels, levels))
def test_stricter_levels_never_give_a_smaller_rank(found: list[float], two: tuple[float, float]) -> None:
    low, high = sorted(two)
    assert tail_rank(spectrum(found), low) >= tail_rank(spectrum(found), high)
    assert energy_rank(spectrum(found), high) >= energy_rank(spectrum(found), low)


@pytest.mark.parametrize("found", [[3.0, 2.0, 1.0], [5.0], [1.0, 1.0, 1.0, 1.0]])
def test_tail_rank_at_the_ends_of_its_level_is_full_or_zero(found: list[float]) -> None:
    assert (tail_rank(spectrum(found), 0.0), tail_rank(spectrum(found), 1.0)) == (len(found), 0)
    assert (energy_rank(spectrum(found), 1.0), energy_rank(spectrum(found), 0.0)) == (len(found), 0)


def test_rank_rules_ignore_singular_values_of_zero() -> None:
    assert tail_rank(spectrum([2.0, 1.0, 0.0, 0.0]), 0.0) == 2


def test_rank_rules_give_zero_for_a_zero_matrix() -> None:
    for empty in (Spectrum(np.zeros(0), 0, 0), spectrum([0.0, 0.0])):
        assert (tail_rank(empty, 0.4), energy_rank(empty, 0.84), tail_rank(empty, 0.0)) == (0, 0, 0)


@given(values, st.integers(-20, 20), levels)
def test_rank_rules_do_not_depend_on_the_scale_of_the_weights(found: list[float], exponent: int, level: float) -> None:
    whole = [float(round(g)) for g in found]  # of which powers of two make other units without rounding
    assert tail_rank(spectrum(whole), level) == tail_rank(spectrum([2.0**exponent * g for g in whole]), level)


# ---- settings --------------------------------------------------------------------------------------------

DRAWN = spectrum([float(g) for g in np.linspace(9, 1, 9) ** 2])


def test_prior_settings_default_to_vbmf_on_the_weights_with_two_batches() -> None:
    settings = PriorSettings()
    assert (settings.rule, settings.level, settings.spectra, settings.calibration) == ("vbmf", None, "weights", 2)
    assert settings.rank(DRAWN) == vbmf(DRAWN).rank == vbmf_rank(DRAWN)


def test_prior_settings_have_a_default_level_for_each_rule() -> None:
    assert PriorSettings(rule="tail").rank(DRAWN) == tail_rank(DRAWN, 0.4)
    assert PriorSettings(rule="energy").rank(DRAWN) == energy_rank(DRAWN, 0.84)
    assert PriorSettings(rule="tail", level=0.1).rank(DRAWN) == tail_rank(DRAWN, 0.1) > tail_rank(DRAWN, 0.4)
    assert PriorSettings(rule="tail", level=0.0).rank(DRAWN) == 9  # zero is a level, not "none given"


@pytest.mark.parametrize(
    "wrong",
    [
        {"rule": "evbmf"},
        {"level": 1.1},
        {"level": -0.1},
        {"level": float("nan")},
        {"spectra": "inputs"},
        {"calibration": -1},
        {"batches": 2},
    ],
)
def test_prior_settings_refuse_unknown_values(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PriorSettings.model_validate(wrong)


@pytest.mark.parametrize("asked", [{"metric": "loss"}, {"cuts": 1}])
def test_settings_that_need_the_loss_need_batches(asked: dict[str, Any]) -> None:
    assert PriorSettings(**asked).calibration > 0
    with pytest.raises(ValidationError, match=rf"{next(iter(asked))} needs batches to take the loss of"):
        PriorSettings(calibration=0, **asked)


def test_targets_are_sampled_for_the_metric_of_the_loss() -> None:
    assert PriorSettings(metric="loss", targets="sampled").targets == "sampled"
    with pytest.raises(ValidationError, match='Set metric = "loss", or leave targets out'):
        PriorSettings(targets="sampled")

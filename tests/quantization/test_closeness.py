"""Doubts about a rounding step: what it may have added by itself, beside an error that is there already."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rank_search.quantization.closeness import Closeness

CLOSENESS = Closeness(lambda model, batch: None, [], [], 0.0)
ERRORS = st.floats(0, 2)


def doubt(error: float, before: float, alone: bool, predicted: float = 1e-4, worth: float = 0.03) -> str:
    return CLOSENESS.surprise(error, before, predicted, worth, alone)


@given(added=st.floats(0, 0.1), seed=st.integers(0, 100))
def test_a_change_that_is_small_by_itself_is_no_surprise_beside_a_large_error(added: float, seed: int) -> None:
    """Errors are vectors: whichever way a small one points, the triangle inequality keeps it out of doubt."""
    drawn = torch.Generator().manual_seed(seed)
    there, new = torch.randn(2, 8, generator=drawn, dtype=torch.float64)
    new *= math.sqrt(added) / float(new.norm())
    error, before = float((there + new).square().sum()), float(there.square().sum())
    assert not doubt(error, before, alone=True, worth=added + 1e-9)


def test_the_whole_difference_is_doubted_where_it_is_not_looked_at_alone() -> None:
    assert "moved the outputs by 0.046" in doubt(0.1765, 0.1301, alone=False)
    assert not doubt(0.1765, 0.1301, alone=True)
    assert doubt(0.6, 0.1301, alone=True)


@given(error=ERRORS)
def test_beside_no_error_both_say_the_same(error: float) -> None:
    assert bool(doubt(error, 0.0, alone=True)) == bool(doubt(error, 0.0, alone=False))


@given(error=ERRORS, before=ERRORS)
def test_what_lowers_the_error_is_no_surprise(error: float, before: float) -> None:
    low, high = sorted((error, before))
    assert not doubt(low, high, alone=True)
    assert not doubt(low, high, alone=False)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(("error", "before"), [(math.nan, 0.1), (math.inf, 0.1), (math.inf, math.inf)])
def test_what_is_not_finite_always_is_one(error: float, before: float, alone: bool) -> None:
    assert doubt(error, before, alone)

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_search.priors import value_at

weakenings = st.floats(0, 2)
ranks = st.floats(1, 4096)


@pytest.mark.parametrize(("weakening", "rank"), [(0, 64), (0.5, 32), (1, 16), (1.5, 4), (2, 1)])
def test_value_at_is_full_at_zero_the_prior_at_one_and_one_at_two(weakening: float, rank: float) -> None:
    assert value_at(weakening, 64, 16) == pytest.approx(rank)


def test_value_at_meets_its_ends_exactly() -> None:
    assert [value_at(w, 577, 13, 3) for w in (0, 1, 2)] == [577, 13, 3]


def test_value_at_reads_a_prior_of_zero_as_one() -> None:
    assert value_at(1, 64, 0) == 1
    assert value_at(0.5, 64, 0) == pytest.approx(8)


def test_value_at_reads_a_prior_above_full_as_full() -> None:
    assert value_at(1, 64, 80) == 64


def test_value_at_clamps_the_weakening() -> None:
    assert value_at(-1, 64, 16) == 64
    assert value_at(3, 64, 16) == 1


def test_value_at_of_nan_is_nan() -> None:
    assert math.isnan(value_at(math.nan, 64, 16))


def test_value_at_is_linear_where_low_is_not_positive() -> None:
    assert value_at(0.5, high=4, prior=2, low=0) == pytest.approx(3)
    assert value_at(1.5, high=4, prior=2, low=0) == pytest.approx(1)


@given(weakenings, weakenings, ranks, ranks, st.sampled_from([0.0, 1.0]))
def test_value_at_falls_with_the_weakening(w: float, v: float, full: float, prior: float, low: float) -> None:
    less, more = sorted((w, v))
    assert value_at(less, full, prior, low) >= value_at(more, full, prior, low) * (1 - 1e-12)


@given(weakenings, ranks, ranks)
def test_value_at_stays_in_range(weakening: float, full: float, prior: float) -> None:
    assert 1 - 1e-12 <= value_at(weakening, full, prior) <= full * (1 + 1e-12)

"""How numbers are written for people, and which axes are logarithmic."""

from __future__ import annotations

import doctest
import math
import re
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_search.basics import cell, chart_style, clock, is_logarithmic, number, number_formats, short_number
from rank_search.basics.chart_style import LOG_SPAN
from rank_search.basics.number_formats import UNITS

UNIT = {letter: unit for unit, letter in UNITS}


@given(st.floats(min_value=-1e14, max_value=1e14))
def test_a_short_number_has_four_digits(value: float) -> None:
    text = short_number(value)
    assert float(text.rstrip("kMGT")) * UNIT.get(text[-1], 1.0) == pytest.approx(value, rel=1e-3)
    assert len(re.sub(r"e.*|[-.kMGT]", "", text).lstrip("0")) <= 4 or np.isclose(value, 0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9999.4, "9999"),
        (9999.6, "10k"),
        (29_639_296, "29.64M"),
        (-1.5e12, "-1.5T"),
        (1e15, "1.000e+15"),
        (math.inf, "–"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_a_short_number_changes_its_unit_where_the_rounded_value_does(value: float | None, text: str) -> None:
    assert short_number(value) == text


@given(st.integers(-(10**18), 10**18))
def test_a_whole_number_is_written_in_full(value: int) -> None:
    assert int(number(value).replace(",", "")) == value


@given(st.floats(min_value=-1e12, max_value=1e12))
def test_a_number_is_true_to_four_digits(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=1e-3)


def test_a_cell_writes_truth_values_and_words_as_they_are() -> None:
    assert [cell(each) for each in (True, "svd", "", None, 0, 1234.5)] == ["True", "svd", "–", "–", "0", "1,234"]
    assert cell(None, None) == "–"
    assert cell(0.25, 0.0333) == "0.25 ± 0.033"


def test_a_clock_carries_rounded_seconds_into_minutes() -> None:
    assert [clock(each) for each in (0, 59.6, 3599.7, 360_000)] == ["0:00", "1:00", "1:00:00", "100:00:00"]


@given(st.floats(1e-6, 1e6), st.floats(1, 1e4))
def test_an_axis_is_logarithmic_above_the_span(low: float, factor: float) -> None:
    assert is_logarithmic([low * factor, low]) == (low * factor > LOG_SPAN * low)
    assert not is_logarithmic([low * factor, -low])


@pytest.mark.parametrize("module", [number_formats, chart_style])
def test_the_examples_of_formats_run(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0

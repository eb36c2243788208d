from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rank_search.trials.symbols import Integers, Prior, SymbolReader, SymbolWriter, laplace_scale

numbers = st.lists(st.integers(-32767, 32767), min_size=1, max_size=60)
small = st.lists(st.integers(-3, 3), min_size=1, max_size=60)


@given(st.lists(numbers | small, max_size=5))
def test_what_is_read_is_what_was_written(lists: list[list[int]]) -> None:
    tensors = [np.array(values, dtype=np.int32) for values in lists]
    priors = [Prior.of(tensor) for tensor in tensors]
    writer = SymbolWriter()
    for tensor, prior in zip(tensors, priors, strict=True):
        writer.write(tensor, prior)
    reader = SymbolReader(writer.finish())
    for tensor, prior in zip(tensors, priors, strict=True):
        assert np.array_equal(reader.read(tensor.size, prior), tensor)


def test_certain_symbols_cost_nothing() -> None:
    writer = SymbolWriter()
    writer.write(np.full(1000, 7, dtype=np.int32), Prior(7, 7, 1.0))
    assert writer.finish() == b""


def rounded_laplace(scale: float, count: int = 20_000) -> Integers:
    return np.round(np.random.default_rng(0).laplace(0, scale, count)).astype(np.int32)


@pytest.mark.parametrize("scale", [0.15, 0.5, 1.0, 5.0, 60.0])
def test_bits_are_within_one_percent_of_the_entropy(scale: float) -> None:
    symbols = rounded_laplace(scale)
    writer = SymbolWriter()
    writer.write(symbols, Prior.of(symbols))
    k = np.arange(-4000, 4001)
    y = 0.5 / scale
    mass = np.where(k == 0, -np.expm1(-y), np.exp(-(np.abs(k) - 0.5) / scale) * -np.expm1(-2 * y) / 2)
    entropy = -float((mass[mass > 0] * np.log2(mass[mass > 0])).sum())
    own = -float(np.log2(mass[symbols + 4000]).sum())
    assert 8 * len(writer.finish()) <= 1.01 * own + 64
    assert own == pytest.approx(symbols.size * entropy, rel=0.05)


@given(small.filter(any))
def test_the_scale_is_the_most_likely_one(values: list[int]) -> None:
    symbols = np.array(values, dtype=np.int32)
    best = laplace_scale(symbols)

    def bits(scale: float) -> float:
        y, k = 0.5 / scale, np.abs(symbols.astype(float))
        mass = np.where(k == 0, -np.expm1(-y), np.exp(-(k - 0.5) / scale) * -np.expm1(-2 * y) / 2)
        return -float(np.log2(mass).sum())

    assert all(bits(best) <= bits(best * factor) + 1e-9 for factor in (0.8, 0.95, 1.05, 1.25))


def test_zeros_alone_have_a_scale_too() -> None:
    assert 0 < laplace_scale(np.zeros(5, dtype=np.int32)) < 0.1


@pytest.mark.parametrize(("low", "high", "scale"), [(1000, 1010, 1e-3), (-5, 30000, 1e-3), (-3, 3, 1e6)])
def test_probabilities_are_never_all_zero(low: int, high: int, scale: float) -> None:
    mass = Prior(low, high, scale).probabilities()
    assert mass.shape == (high - low + 1,)
    assert np.isfinite(mass).all()
    assert mass.sum() > 0

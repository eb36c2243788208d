"""Bits and error of rounded factors, by the formula and in fact."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rank_search.errors import ContractError
from rank_search.priors.rate import (
    best_for_bits,
    best_for_distortion,
    coded_bits,
    coded_distortion,
    component_steps,
    rounded_entropy,
)
from rank_search.priors.spectrum import Spectrum

Matrix = NDArray[np.float64]
DECAYS = {"slow": lambda i: i**-0.7, "fast": lambda i: i**-1.2, "exponential": lambda i: np.exp(-i / 20) + 0.01}
SPECTRA = st.lists(st.floats(0.01, 10.0), min_size=1, max_size=12).map(
    lambda found: Spectrum(np.sort(np.array(found))[::-1].copy(), len(found), 2 * len(found))
)


def frames(size: int, rank: int, seed: int) -> Matrix:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, rank)))[0]


def planted(decay: str, rows: int = 96, columns: int = 160) -> tuple[Spectrum, Matrix, Matrix]:
    values = DECAYS[decay](np.arange(1.0, rows + 1))
    return Spectrum(values, rows, columns), frames(rows, rows, 0), frames(columns, rows, 1)


def empirical_bits(whole: Matrix) -> float:
    """Entropy of whole numbers, all of them alike."""
    _, counts = np.unique(whole, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum() * whole.size)


def exact_entropy(t: float) -> float:
    edges = (np.arange(-400, 402) - 0.5) / (t * math.sqrt(2))
    mass = np.diff([0.5 * math.erf(edge) for edge in edges])
    mass = mass[mass > 0]
    return float(-(mass * np.log2(mass)).sum())


@given(st.floats(0.05, 40.0))
def test_the_entropy_of_rounded_normals_is_that_of_the_sum(t: float) -> None:
    assert rounded_entropy(np.array([t]))[0] == pytest.approx(exact_entropy(t), abs=2e-3)


def test_entropy_of_rounded_normals_at_the_ends_of_its_range() -> None:
    found = rounded_entropy(np.array([0.0, -1.0, 1e-9, np.inf, np.nan]))
    assert found[:3].tolist() == [0.0, 0.0, 0.0]
    assert found[3] == np.inf
    assert np.isnan(found[4])


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("rank", [8, 32])
@pytest.mark.parametrize("bits", [2.0, 3.5])
def test_closed_form_error_and_bits_are_those_of_rounded_factors(decay: str, rank: int, bits: float) -> None:
    """Each component's entries rounded in steps of Δ/g; each is coded under its own distribution."""
    spectrum, U, V = planted(decay)
    found = step = spectrum.values[rank // 2] / math.sqrt(spectrum.rows) / 2**bits * 4
    steps = component_steps(spectrum, rank, step)
    wholes = [np.round(frame[:, :rank] / steps) for frame in (U, V)]
    g = spectrum.values
    rebuilt = (wholes[0] * steps * g[:rank]) @ (wholes[1] * steps).T
    error = float(np.square((U * g) @ V.T - rebuilt).sum())
    assert error == pytest.approx(coded_distortion(spectrum, rank, found), rel=0.05)
    # What an ideal coder takes that knows the distributions: −log2 of each number's mass.
    coded = sum(_cost(whole[:, i], g[i] / math.sqrt(len(whole)) / step) for whole in wholes for i in range(rank))
    assert coded == pytest.approx(coded_bits(spectrum, rank, found), rel=0.02)


def _cost(whole: Matrix, t: float) -> float:
    scale = t * math.sqrt(2)
    masses = [0.5 * (math.erf((k + 0.5) / scale) - math.erf((k - 0.5) / scale)) for k in whole.tolist()]
    return -sum(math.log2(max(mass, 1e-12)) for mass in masses)


def test_closed_form_bits_without_orthonormal_columns_are_more() -> None:
    """The same product after a random change of coordinates, in one step with a table of its own at equal error."""
    spectrum, U, V = planted("fast")
    rank, step, g = 32, 0.01, spectrum.values
    exact = (U * g) @ V.T
    aim = coded_distortion(spectrum, rank, step)
    mix = np.random.default_rng(2).standard_normal((rank, rank))
    A, B = (U[:, :rank] * g[:rank]) @ mix, V[:, :rank] @ np.linalg.inv(mix).T
    B, A = B * np.abs(A).mean() / np.abs(B).mean(), A * np.abs(B).mean() / np.abs(A).mean()
    low, high = 1e-6, 1.0
    for _ in range(40):
        middle = math.sqrt(low * high)
        error = np.square(exact - np.round(A / middle) @ np.round(B / middle).T * middle**2).sum()
        low, high = (low, middle) if error > aim else (middle, high)
    mixed = empirical_bits(np.round(A / low)) + empirical_bits(np.round(B / low))
    assert mixed > 1.2 * coded_bits(spectrum, rank, step)


@settings(deadline=None)
@given(SPECTRA, st.floats(0.02, 0.98))
def test_closed_form_best_rank_is_that_of_trying_all(spectrum: Spectrum, share: float) -> None:
    most = share * spectrum.energy
    best = best_for_distortion(spectrum, most)
    assert best.distortion == pytest.approx(coded_distortion(spectrum, best.rank, best.step))
    assert best.bits == pytest.approx(coded_bits(spectrum, best.rank, best.step))
    for rank in range(1, len(spectrum.values) + 1):
        left = most - coded_distortion(spectrum, rank, 0.0)
        if left > 0:
            step = math.sqrt(12 * left / (rank * (spectrum.rows + spectrum.columns)))
            assert best.bits <= coded_bits(spectrum, rank, step) * (1 + 1e-12)


@settings(deadline=None)
@given(SPECTRA, st.floats(0.02, 0.98))
def test_closed_form_bits_and_distortion_are_inverse_functions(spectrum: Spectrum, share: float) -> None:
    forth = best_for_distortion(spectrum, share * spectrum.energy)
    back = best_for_bits(spectrum, forth.bits)
    assert back.bits <= forth.bits
    assert back.distortion <= forth.distortion * (1 + 1e-9)


def test_closed_form_edge_cases() -> None:
    spectrum = Spectrum(np.array([2.0, 1.0]), 2, 3)
    nothing = Spectrum(np.zeros(0), 0, 0)
    assert best_for_distortion(spectrum, 5.0) == best_for_bits(spectrum, 0.0)
    assert best_for_distortion(spectrum, 5.0).rank == 0
    assert best_for_bits(nothing, 10.0).bits == best_for_distortion(nothing, 0.0).bits == 0.0
    assert coded_bits(spectrum, 2, 0.0) == math.inf
    assert coded_bits(spectrum, 0, 0.0) == coded_bits(spectrum, 2, math.inf) == 0.0
    assert coded_distortion(spectrum, 0, math.inf) == spectrum.energy
    assert component_steps(Spectrum(np.array([1.0, 0.0]), 2, 2), 2, 0.5).tolist() == [0.5, math.inf]


@pytest.mark.parametrize("call", [
    lambda spectrum: coded_bits(spectrum, 3, 1.0),
    lambda spectrum: coded_distortion(spectrum, 1, math.nan),
    lambda spectrum: best_for_distortion(spectrum, 0.0),
    lambda spectrum: best_for_distortion(spectrum, math.nan),
    lambda spectrum: best_for_bits(spectrum, math.inf),
])  # fmt: skip
def test_closed_form_refuses_impossible_arguments(call: object) -> None:
    with pytest.raises(ContractError):
        call(Spectrum(np.array([2.0, 1.0]), 2, 3))  # type: ignore[operator]

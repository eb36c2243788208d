import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rank_search.priors.spectrum import Spectrum
from rank_search.priors.vbmf import relative_threshold, vbmf

INDEX_16 = np.arange(1, 17)
INDEX_64 = np.arange(1, 65)


def normal(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(rows: int, columns: int, rank: int, signal_to_noise: float, seed: int = 0) -> torch.Tensor:
    """Gaussian factors of that rank with unit entries, plus noise; the ratio is that of their powers."""
    signal = normal(rows, rank, seed) @ normal(rank, columns, seed + 1) / max(rank, 1) ** 0.5
    return signal + normal(rows, columns, seed + 2) / signal_to_noise**0.5


def rank_of(matrix: torch.Tensor) -> int:
    return vbmf(Spectrum.of(matrix, "here")).rank


@pytest.mark.parametrize(
    ("rows", "columns", "values", "noise_variance", "threshold", "rank"),
    [
        (4, 10, [10, 5, 1, 0.9], 0.1551766, 2.245215, 2),
        (5, 5, [9, 7, 1, 0.8, 0.5], 5.2756, 11.381453, 0),
        (8, 72, [30, 20, 10, 9.5, 9, 8.5, 8, 7.5], 1.12260833, 13.040333, 2),
        (16, 144, 1 / INDEX_16, 6.308e-5, 0.138244, 7),
        (16, 144, INDEX_16**-0.5, 8.5698e-4, 0.509535, 3),
        (4, 16, [1, 1, 1, 1], 0.0625, 1.648956, 0),
        (64, 576, 1 + 10 * np.exp(-(INDEX_64 - 1) / 10), 2.91113e-3, 1.878237, 25),
    ],
)
def test_vbmf_of_golden_spectra(
    rows: int, columns: int, values: list[float], noise_variance: float, threshold: float, rank: int
) -> None:
    prior = vbmf(Spectrum(np.array(values, dtype=np.float64), rows, columns))
    assert prior.rank == rank
    assert prior.noise_variance == pytest.approx(noise_variance, rel=1e-4)
    assert prior.threshold == pytest.approx(threshold, rel=1e-4)


def test_vbmf_takes_the_global_minimum_where_a_local_one_lies_nearer_to_the_upper_end() -> None:
    prior = vbmf(Spectrum(np.array([10, 5, 1, 0.9]), 4, 10))
    assert prior.noise_variance < 0.2  # the local minimum at 1.05 would give rank 1
    assert prior.rank == 2


def test_vbmf_energy_kept_is_the_share_of_the_kept_values() -> None:
    assert vbmf(Spectrum(np.array([10, 5, 1, 0.9]), 4, 10)).energy_kept == pytest.approx(125 / 126.81)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(1, 4.9108), (0.75, 4.2719), (0.5, 3.5631), (0.25, 2.7191), (1 / 9, 2.1039), (0.05, 1.7283), (0.001, 1.1102)],
)
def test_relative_threshold_solves_its_equation(ratio: float, expected: float) -> None:
    assert relative_threshold(ratio) == pytest.approx(expected, abs=6e-5)


@given(st.floats(1e-7, 1))
def test_relative_threshold_lies_just_above_the_marchenko_pastur_edge(ratio: float) -> None:
    edge = (1 + math.sqrt(ratio)) ** 2
    assert edge < relative_threshold(ratio) < 1.25 * edge


PLANTED = [(64, 576, 1), (64, 576, 10), (32, 1024, 5), (256, 2304, 26)]
PLANTED_NEARLY_SQUARE = [(128, 128, 8), (300, 200, 15), (20, 24, 2)]


@pytest.mark.parametrize(
    ("rows", "columns", "rank", "signal_to_noise"),
    [(*sizes, ratio) for sizes in PLANTED for ratio in (0.3, 1, 30, 1e6)]
    + [(*sizes, ratio) for sizes in PLANTED_NEARLY_SQUARE for ratio in (2, 30, 1e6)],
)
def test_vbmf_recovers_planted_ranks(rows: int, columns: int, rank: int, signal_to_noise: float) -> None:
    prior = vbmf(Spectrum.of(planted(rows, columns, rank, signal_to_noise), "here"))
    assert prior.rank == rank
    assert prior.noise_variance == pytest.approx(1 / signal_to_noise, rel=0.2)


@pytest.mark.parametrize("shape", [(64, 576), (128, 128), (256, 30), (3, 100)])
def test_vbmf_rank_of_pure_noise_is_zero(shape: tuple[int, int]) -> None:
    prior = vbmf(Spectrum.of(5 * normal(*shape, seed=0), "here"))
    assert (prior.rank, prior.energy_kept) == (0, 0)
    assert prior.noise_variance == pytest.approx(25, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [1, 3, 20, 57])  # the limit LM/(L+M) is 57.6
def test_vbmf_rank_of_noiseless_matrices_is_exact(rank: int, dtype: torch.dtype) -> None:
    assert rank_of((normal(64, rank, 0) @ normal(rank, 576, 1)).to(dtype)) == rank


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 2)])
def test_vbmf_rank_of_too_few_rows_is_zero(shape: tuple[int, int]) -> None:
    assert rank_of(normal(*shape, seed=0)) == 0


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (4, 9)])
def test_vbmf_rank_of_a_zero_matrix_is_zero(shape: tuple[int, int]) -> None:
    prior = vbmf(Spectrum.of(torch.zeros(shape), "here"))
    assert (prior.rank, prior.noise_variance, prior.threshold, prior.energy_kept) == (0, 0, 0, 0)


def test_vbmf_rank_of_identity_matrices_is_zero() -> None:
    assert rank_of(torch.eye(30)) == 0


def test_vbmf_rank_does_not_depend_on_dead_filters() -> None:
    matrix = planted(16, 144, 5, 2)
    dead = torch.cat([matrix, 0.012 * normal(2, 144, 7)])
    assert rank_of(dead) == rank_of(matrix) == 5
    assert rank_of(dead.T) == 5


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 40),
    st.integers(2, 40),
    st.integers(0, 4),
    st.sampled_from([0.2, 2.0, 50.0]),
    st.floats(-6, 6).map(lambda exponent: 10**exponent),
    st.integers(0, 1000),
)
def test_vbmf_rank_does_not_depend_on_scale_transposition_or_order(
    rows: int, columns: int, rank: int, signal_to_noise: float, scale: float, seed: int
) -> None:
    matrix = planted(rows, columns, rank, signal_to_noise, seed)
    prior = vbmf(Spectrum.of(matrix, "here"))
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    for same in (matrix * scale, matrix.T * scale, matrix[order] * -scale):
        again = vbmf(Spectrum.of(same, "here"))
        assert again.rank == prior.rank
        assert again.noise_variance == pytest.approx(prior.noise_variance * scale**2, rel=1e-5)
        assert again.threshold == pytest.approx(prior.threshold * scale, rel=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=24), st.integers(0, 200))
def test_vbmf_noise_is_a_global_minimum_of_the_free_energy(values: list[float], extra: int) -> None:
    """A dense grid of the formula as the literature writes it finds nothing lower."""
    spectrum = Spectrum(np.sort(values)[::-1].astype(np.float64), len(values), len(values) + extra)
    prior = vbmf(spectrum)
    grid = np.geomspace(lowest_noise(spectrum), spectrum.energy / (spectrum.rows * spectrum.columns), 3000)
    found, *others = free_energy(spectrum, np.array([prior.noise_variance, *grid]))
    assert found <= min(others) + 1e-7 * spectrum.rows


def lowest_noise(spectrum: Spectrum) -> float:
    """The lower end of the bracket, summed by hand."""
    rows, columns = spectrum.rows, spectrum.columns
    most = math.ceil(rows * columns / (rows + columns)) - 1
    tail = sum(value**2 for value in spectrum.values[most:]) / (columns * (rows - most))
    first = spectrum.values[most] ** 2 / (columns * relative_threshold(rows / columns))
    return float(max(tail, first))


def free_energy(spectrum: Spectrum, noise: np.ndarray) -> np.ndarray:
    ratio = spectrum.rows / spectrum.columns
    edge = relative_threshold(ratio)
    total = np.zeros(len(noise))
    for value in spectrum.values:
        x = value**2 / (spectrum.columns * noise)
        shifted = np.maximum(x, edge) - (1 + ratio)
        tau = (shifted + np.sqrt(shifted**2 - 4 * ratio)) / 2
        total += x - np.log(x)
        total += (x > edge) * (np.log(1 + tau) + ratio * np.log(1 + tau / ratio) - tau)
    return total


def test_free_energy_at_its_two_minima() -> None:
    spectrum = Spectrum(np.array([10, 5, 1, 0.9]), 4, 10)
    levels = free_energy(spectrum, np.array([vbmf(spectrum).noise_variance, 1.0512]))
    assert levels == pytest.approx([8.534792, 9.221821], abs=1e-5)
    assert min(free_energy(spectrum, np.array([1.0, 1.1]))) > levels[1], "the other one is a minimum, too"

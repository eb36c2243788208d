import numpy as np
import pytest
import torch

from rank_search.errors import ContractError, LayerError
from rank_search.priors.spectrum import Spectrum
from rank_search.priors.vbmf import vbmf
from tests.far_device import FAR, far_device


def normal(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 5), (8, 72), (72, 8), (40, 2500), (2500, 40)])
def test_spectrum_is_that_of_a_full_svd(shape: tuple[int, int]) -> None:
    matrix = normal(*shape)
    spectrum = Spectrum.of(matrix, "here")
    expected = np.linalg.svd(matrix.numpy(), compute_uv=False)
    np.testing.assert_allclose(spectrum.values, expected, rtol=1e-9)
    assert (spectrum.rows, spectrum.columns) == (min(shape), max(shape))
    assert spectrum.energy == pytest.approx(float(matrix.square().sum()))


def test_spectrum_leaves_the_matrix_unchanged() -> None:
    matrix = normal(20, 30).requires_grad_()
    before = matrix.detach().clone()
    Spectrum.of(matrix, "here")
    assert torch.equal(matrix, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_spectrum_of_low_precision_weights_is_computed_in_float64(dtype: torch.dtype) -> None:
    matrix = normal(16, 40).to(dtype)
    expected = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(Spectrum.of(matrix, "here").values, expected, rtol=1e-9)


def test_spectrum_does_not_depend_on_the_memory_layout() -> None:
    matrix = normal(12, 30)
    strided = torch.empty(12, 60, dtype=torch.float64)[:, ::2].copy_(matrix)
    np.testing.assert_allclose(Spectrum.of(strided, "").values, Spectrum.of(matrix, "").values, rtol=1e-12)


def test_spectrum_leaves_out_dead_rows_and_columns() -> None:
    living = normal(14, 60)
    matrix = torch.zeros(16, 64, dtype=torch.float64)
    matrix[:14, :60] = living
    matrix[14:] = 1e-2 * normal(2, 64, seed=1)
    matrix[:, 60:] = 1e-2 * normal(16, 4, seed=2)
    spectrum = Spectrum.of(matrix, "here")
    assert (spectrum.rows, spectrum.columns) == (14, 60)
    np.testing.assert_allclose(spectrum.values, Spectrum.of(living, "here").values, rtol=1e-9)


def test_spectrum_keeps_weak_rows_that_are_not_dead() -> None:
    matrix = normal(16, 64)
    matrix[3] *= 0.07
    assert Spectrum.of(matrix, "here").rows == 16


def test_spectrum_of_a_layer_with_most_filters_pruned_away_still_has_a_scale() -> None:
    matrix = torch.zeros(16, 64, dtype=torch.float64)
    matrix[:5] = normal(5, 64)
    matrix[5] = 1e-3 * normal(1, 64, seed=1)
    assert Spectrum.of(matrix, "here").rows == 5


def test_spectrum_orients_what_is_left_without_dead_rows() -> None:
    matrix = torch.zeros(50, 60, dtype=torch.float64)
    matrix[:, :20] = normal(50, 20)
    spectrum = Spectrum.of(matrix, "here")
    assert (spectrum.rows, spectrum.columns, len(spectrum.values)) == (20, 50, 20)
    np.testing.assert_allclose(spectrum.values, np.linalg.svd(matrix.numpy(), compute_uv=False)[:20])


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (3, 4), (1, 1)])
def test_spectrum_of_zero_and_empty_matrices_has_no_values(shape: tuple[int, int]) -> None:
    spectrum = Spectrum.of(torch.zeros(shape), "here")
    assert (spectrum.rows, spectrum.columns, len(spectrum.values), spectrum.energy) == (0, 0, 0, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [1, 3])
def test_spectrum_clips_rounding_noise_to_zero(dtype: torch.dtype, rank: int) -> None:
    matrix = (normal(64, rank) @ normal(rank, 576, seed=1)).to(dtype)
    values = Spectrum.of(matrix, "here").values
    assert np.count_nonzero(values) == rank


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_spectrum_scales_with_the_matrix(scale: float) -> None:
    matrix = normal(16, 40)
    expected = Spectrum.of(matrix, "here").values * scale
    np.testing.assert_allclose(Spectrum.of(matrix * scale, "here").values, expected, rtol=1e-9)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_spectrum_of_weights_that_are_not_finite_is_an_error_that_says_where(bad: float) -> None:
    matrix = normal(6, 8)
    matrix[2, 3] = bad
    with pytest.raises(LayerError, match="layer 'conv1' has 1 NaN or infinite entries out of 48"):
        Spectrum.of(matrix, "layer 'conv1'")


def test_spectrum_of_an_unfolding_that_is_no_matrix_breaks_the_contract() -> None:
    with pytest.raises(ContractError, match=r"layer 'conv1' has the shape \(2, 3, 4\)"):
        Spectrum.of(torch.ones(2, 3, 4), "layer 'conv1'")


def large(shape: tuple[int, int], powers: torch.Tensor) -> torch.Tensor:
    """A float32 matrix whose singular values are these, but for its rounding."""
    left, _ = torch.linalg.qr(normal(shape[0], len(powers), seed=1))
    right, _ = torch.linalg.qr(normal(shape[1], len(powers), seed=2))
    return ((left * powers) @ right.T).float()


def in_double(matrix: torch.Tensor) -> Spectrum:
    """What float64 finds: the same numbers in a dtype that single precision would not do for."""
    return Spectrum.of(matrix.double(), "here")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_a_large_spectrum_in_single_precision_is_that_of_double(transposed: bool, scale: float) -> None:
    signal = normal(1030, 60, seed=3) @ normal(60, 1100, seed=4) / 60**0.5
    matrix = (signal + normal(1030, 1100, seed=5)).float()
    matrix[7] *= 1e-3  # dead
    matrix = (matrix.T if transposed else matrix) * scale
    exact, found = in_double(matrix), Spectrum.of(matrix, "here")
    assert (found.rows, found.columns) == (exact.rows, exact.columns) == (1029, 1100)
    assert (found.values != exact.values).any(), "single precision was not tried"
    bound = 1029**0.5 * torch.finfo(torch.float32).eps * exact.values[0] ** 2
    assert np.abs(found.values**2 - exact.values**2).max() < bound
    prior, expected = vbmf(found), vbmf(exact)
    assert prior.rank == expected.rank == 60
    assert prior.noise_variance == pytest.approx(expected.noise_variance, rel=1e-4)
    assert found.energy == pytest.approx(exact.energy, rel=1e-6)


@pytest.mark.parametrize(
    "powers",
    [
        pytest.param(torch.ones(20), id="noiseless"),
        pytest.param(0.97 ** torch.arange(1024.0), id="decaying over many decades"),
        pytest.param(torch.cat([torch.tensor([1e3]), torch.rand(1023) + 0.5]), id="one value far above all others"),
    ],
)
def test_a_large_spectrum_that_single_precision_would_blur_is_of_double(powers: torch.Tensor) -> None:
    matrix = large((1024, 1100), powers.double())
    found, exact = Spectrum.of(matrix, "here"), in_double(matrix)
    count = np.count_nonzero(found.values)  # the others are rounding of the float32 matrix, which is zero
    assert np.array_equal(found.values[:count], exact.values[:count])
    assert count <= len(powers)
    assert (exact.values[count:] <= torch.finfo(torch.float32).eps * exact.values[0]).all()


@pytest.mark.parametrize("shape", [(8, 72), (72, 8), (1100, 1200)])
def test_on_another_device_all_of_it_runs_there(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = normal(*shape).to(torch.float32)
    matrix[3], matrix[:, 5] = 0.0, 0.0  # left out
    here = Spectrum.of(matrix.to(torch.float64), "here")

    def on_the_cpu(*_: object) -> None:
        raise AssertionError("a block of the matrix came to the CPU")

    monkeypatch.setattr("rank_search.priors.spectrum._blocks", on_the_cpu)
    monkeypatch.setattr("rank_search.priors.spectrum._values_in_single", on_the_cpu)
    with far_device():
        there = Spectrum.of(matrix.to(FAR), "there")
    assert (there.rows, there.columns) == (here.rows, here.columns)
    np.testing.assert_allclose(there.values, here.values, rtol=1e-9)


def test_stacks_are_decomposed_where_they_are() -> None:
    stack = normal(12, 5).reshape(3, 4, 5)
    with far_device():
        there = Spectrum.of_stack(stack.to(FAR), "there")
    np.testing.assert_allclose(there.values, Spectrum.of_stack(stack, "here").values, rtol=1e-9)

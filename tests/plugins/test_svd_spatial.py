"""The spatial SVD: the laws, separable kernels, and where it does not apply."""

from __future__ import annotations

import pytest
import torch
from rank_search_plugins.svd_spatial import SpatialSVD, matrix
from torch import nn

from rank_search.layers import DirectBases, Layer
from rank_search.testing import FactorizationLaws


class TestLaws(FactorizationLaws):
    factorization = SpatialSVD
    equality = True


@pytest.mark.parametrize(
    "layer",
    [Layer("x", "linear", (5, 4)), Layer("x", "conv2d", (5, 4, 1, 1), stride=(2, 2))],
)
def test_spatial_svd_does_not_apply_to_kernels_of_one_pixel(layer: Layer) -> None:
    assert SpatialSVD.axes(layer) == ()


def test_spatial_unfolding_has_rows_of_the_column_filters() -> None:
    weight = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    unfolded = matrix(weight)
    assert unfolded.shape == (3 * 4, 2 * 5)
    assert unfolded[2 * 4 + 1, 1 * 5 + 3] == weight[1, 2, 1, 3]


def test_a_separable_kernel_has_rank_one() -> None:
    rows, columns = torch.randn(4, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    weight = torch.einsum("iy,ox->oiyx", rows, columns)
    spatial = SpatialSVD(Layer("x", "conv2d", (6, 4, 3, 2), dtype=torch.float64), rank=1)
    spatial.fit(weight, DirectBases(weight))
    torch.testing.assert_close(spatial.dense(), weight)


def test_spatial_svd_of_full_rank_is_the_layer_itself() -> None:
    module = nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), padding_mode="circular", dtype=torch.float64)
    (axis,) = SpatialSVD.axes(Layer.of(module))
    assert axis.high == 12
    spatial = SpatialSVD(Layer.of(module), rank=12)
    spatial.fit(module.weight, DirectBases(module.weight))
    spatial.bias.data.copy_(module.bias)
    x = torch.randn(2, 4, 8, 9, dtype=torch.float64)
    torch.testing.assert_close(spatial(x), module(x))


def test_spatial_svd_frame_is_orthonormal() -> None:
    weight = torch.randn(6, 4, 3, 3)
    spatial = SpatialSVD(Layer("x", "conv2d", (6, 4, 3, 3)), rank=5)
    spatial.fit(weight, DirectBases(weight))
    (frame,) = spatial.frames()
    assert frame.shape == (12, 5)
    torch.testing.assert_close(frame.T @ frame, torch.eye(5), atol=1e-5, rtol=0)

"""The channel SVD: the laws, and what its layers cost and look like."""

from __future__ import annotations

from dataclasses import replace

import torch
from rank_search_plugins.svd import ChannelSVD
from torch import nn

from rank_search.layers import DirectBases, Layer
from rank_search.testing import FactorizationLaws


class TestLaws(FactorizationLaws):
    factorization = ChannelSVD
    equality = True
    layers = (
        replace(Layer.of(nn.Embedding(9, 4), "embedding"), inputs=((2, 3),)),
        replace(Layer.of(nn.Embedding(5, 8, padding_idx=2, dtype=torch.float64), "padded"), inputs=((6,),)),
    )


def test_channel_svd_of_full_rank_is_the_layer_itself() -> None:
    module = nn.Conv2d(5, 7, 3, stride=2, padding=1, dtype=torch.float64)
    (axis,) = ChannelSVD.axes(Layer.of(module))
    svd = ChannelSVD(Layer.of(module), rank=int(axis.high))
    svd.fit(module.weight, DirectBases(module.weight))
    svd.bias.data.copy_(module.bias)
    x = torch.randn(2, 5, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(svd(x), module(x))


def test_channel_svd_frame_is_orthonormal_and_the_other_factor_carries_the_values() -> None:
    weight = torch.randn(7, 5, 3, 3, dtype=torch.float64)
    svd = ChannelSVD(Layer("x", "conv2d", (7, 5, 3, 3), dtype=torch.float64), rank=3)
    svd.fit(weight, DirectBases(weight))
    (frame,) = svd.frames()
    torch.testing.assert_close(frame.T @ frame, torch.eye(3, dtype=torch.float64))
    norms = svd.right.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.linalg.svdvals(weight.flatten(1))[:3])

"""Nonzeros: counted in what is kept, each number once."""

from __future__ import annotations

import torch
from rank_search_plugins.svd import ChannelSVD
from torch import nn

from rank_search.layers import Layer, count_nonzeros, count_params
from tests.repeated import Thresholded

LAYER = Layer("layer", "linear", (12, 20), inputs=((1, 20),))


def with_numbers(form: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in form.parameters():
            parameter.normal_()
    return form


def test_zeros_of_a_dense_model_are_left_out_and_shared_tensors_count_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[0].weight[:, 1:] = 0
    assert count_params(model) == 16 + 8
    assert count_nonzeros(model) == 4 + 8


def test_of_a_low_rank_the_factors_count() -> None:
    model = nn.Sequential(with_numbers(ChannelSVD(LAYER, rank=3)))
    assert count_nonzeros(model) == count_params(model) == 3 * (12 + 20) + 12
    with torch.no_grad():
        model[0].get_parameter("right")[1] = 0
    assert count_nonzeros(model) == 2 * 20 + 3 * 12 + 12


def test_of_a_sparse_weight_the_weight_counts() -> None:
    form = with_numbers(Thresholded(LAYER, start=0.5))
    assert isinstance(form, Thresholded)
    with torch.no_grad():
        form.threshold.fill_(1.0)
    left = int((form.full.abs() > 1).sum())
    assert 0 < left < 240
    assert count_nonzeros(nn.Sequential(form)) == left + 12
    assert count_params(form) == 240 + 1 + 12


def test_a_rank_that_is_larger_than_the_weight_counts_as_the_weight() -> None:
    form = with_numbers(ChannelSVD(LAYER, rank=12))
    assert count_nonzeros(form) == 12 * 20 + 12 < count_params(form)

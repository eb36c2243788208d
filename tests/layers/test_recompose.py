"""A factorized model put together again: ordinary layers, the same function, everything else its own."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rank_search.layers import DirectBases, Factorization, factorize, installed, load_plugin, recompose, take_inventory
from rank_search.point import Choice, Point

BUILT_IN = sorted(name for name, entry in installed().items() if entry.value.startswith("rank_search_plugins"))
WITHOUT_FULL_RANK = ("cp", "hashing", "hashing-kronecker", "buckets", "symmetric-", "circulant-")
PLUGINS = {name: load_plugin(name) for name in BUILT_IN}


def network(channels: int, dilation: int, bias: bool) -> nn.Module:
    shared = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=bias)
    return nn.Sequential(
        nn.Conv2d(3, channels, (3, 2), stride=(2, 1), padding="valid" if bias else 1),
        nn.BatchNorm2d(channels),
        shared,
        nn.ReLU(),
        shared,
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * channels, 5, bias=bias),
    ).eval()


def written(model: nn.Module, plugin: str, share: float) -> tuple[nn.Module, dict]:
    """Each layer that the plugin applies to, with each axis at that share of its top."""
    layers = take_inventory(model, torch.zeros(1, 3, 9, 9)).layers
    axes = {name: PLUGINS[plugin].axes(layer) for name, layer in layers.items()}
    choices = {
        name: Choice(plugin, {axis.name: max(int(axis.low), int(share * axis.high)) for axis in found})
        for name, found in axes.items()
        if found
    }
    bases = lambda name: DirectBases(model.get_submodule(name).weight)  # noqa: E731
    return factorize(model, Point(choices), layers, PLUGINS, bases), dict(layers)


@pytest.mark.parametrize("plugin", BUILT_IN)
@given(seed=st.integers(0, 2**20), channels=st.integers(1, 6), dilation=st.integers(1, 2), bias=st.booleans())
@settings(max_examples=8, deadline=None)
def test_a_recomposed_model_computes_the_same_as_the_factorized_one(
    plugin: str, seed: int, channels: int, dilation: int, bias: bool
) -> None:
    torch.manual_seed(seed)
    model = network(channels, dilation, bias)
    factorized, layers = written(model, plugin, 0.5)
    before = copy.deepcopy(factorized.state_dict())
    put_together = recompose(factorized, model, layers)
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(put_together(x), factorized(x), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, Factorization) for module in put_together.modules())
    assert put_together[2] is put_together[4], "a layer with two names stays one"
    assert all(torch.equal(before[name], tensor) for name, tensor in factorized.state_dict().items())


@pytest.mark.parametrize("plugin", [name for name in BUILT_IN if not name.startswith(WITHOUT_FULL_RANK)])
@given(seed=st.integers(0, 2**20), channels=st.integers(1, 6), bias=st.booleans())
@settings(max_examples=8, deadline=None)
def test_recomposing_full_ranks_gives_the_original_model(plugin: str, seed: int, channels: int, bias: bool) -> None:
    torch.manual_seed(seed)
    model = network(channels, 1, bias)
    factorized, layers = written(model, plugin, 1.0)
    put_together = recompose(factorized, model, layers)
    assert put_together.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(put_together.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(put_together(x), model(x), rtol=1e-4, atol=1e-4)


def test_recomposing_keeps_the_other_trained_parameters() -> None:
    torch.manual_seed(0)
    model = network(4, 1, bias=True)
    factorized, layers = written(model, "svd", 0.5)
    with torch.no_grad():
        factorized[1].running_mean.add_(3)
        factorized[0].bias.add_(2)
        factorized[0].left.mul_(2)
    put_together = recompose(factorized, model, layers)
    assert torch.equal(put_together[1].running_mean, model[1].running_mean + 3)
    assert torch.equal(put_together[0].bias, factorized[0].bias)
    torch.testing.assert_close(put_together[0].weight, factorized[0].dense())
    assert (put_together[0].stride, put_together[0].padding) == (model[0].stride, model[0].padding)

"""Relaxed layers: hard masks give each option as it is fitted, in one forward of the whole network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.continuous.layer_steps import layer_paths
from rank_search.continuous.relaxed import _Nested, relaxed_layer, relaxed_network, weights_between
from rank_search.layers import weight_of
from rank_search.options import OptionTable
from tests.continuous.small_networks import convolutional, images

FORMS = (["svd"], ["svd-spatial"], ["tucker2"], ["svd", "cp"])


def table_of(model: nn.Module, forms: list[str], batches: list[Tensor] | None = None) -> OptionTable:
    return rs.options(model, batches, example=torch.zeros(1, 3, 6, 6), layers={"factorizations": forms})


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return convolutional()


@pytest.mark.parametrize("forms", FORMS, ids=str)
@pytest.mark.parametrize("calibrated", [False, True])
def test_hard_masks_give_every_fit(model: nn.Module, forms: list[str], calibrated: bool) -> None:
    table = table_of(model, forms, images() if calibrated else None)
    for path in layer_paths(table, lambda option: float(option.params)):
        for name in path.options[0].choices:
            choices = [each.choices[name] for each in path.options]
            weight = weights_between(table, name, choices)
            for taken, choice in enumerate(choices):
                found = weight((torch.arange(len(choices) - 1) < taken).double())
                assert torch.allclose(found, table.fits.weight(name, choice), atol=1e-4)
    assert torch.equal(table.fits.weight("0", rs.Choice()), weight_of(model, "0"))


def test_components_of_an_svd_are_nested_and_those_of_a_cp_are_not(model: nn.Module) -> None:
    table = table_of(model, ["svd", "cp"], images())
    ranks = [2, 4, 6]
    assert _Nested.of(table, "3", [*(rs.Choice("svd", {"rank": rank}) for rank in ranks), rs.Choice()]) is not None
    assert _Nested.of(table, "3", [rs.Choice("cp", {"rank": rank}) for rank in ranks]) is None
    assert _Nested.of(table, "3", [rs.Choice("svd", {"rank": 2}), rs.Choice("cp", {"rank": 4}), rs.Choice()]) is None


def test_masks_between_fits_weigh_components(model: nn.Module) -> None:
    table = table_of(model, ["svd"])
    choices = [rs.Choice("svd", {"rank": rank}) for rank in (1, 2, 4)]
    first, second, last = (table.fits.weight("3", choice) for choice in choices)
    found = weights_between(table, "3", choices)(torch.tensor([0.75, 0.25]))
    assert torch.allclose(found, first + 0.75 * (second - first) + 0.25 * (last - second), atol=1e-5)


def test_a_relaxed_network_with_all_steps_is_the_dense_one(model: nn.Module) -> None:
    table = table_of(model, ["svd", "tucker2"])
    names = [name for options in table.of.values() for name in options[0].choices]
    network = relaxed_network(model, table, names)
    for path in layer_paths(table, lambda option: float(option.params)):
        for name in path.options[0].choices:
            relaxed = relaxed_layer(network, name)
            relaxed.weight_of = weights_between(table, name, [each.choices[name] for each in path.options])
            relaxed.masks = torch.ones(len(path.prices), dtype=torch.float64, requires_grad=True)
    (x,) = images(1)
    outputs = network(x)
    assert torch.allclose(outputs, model(x), atol=1e-4)
    torch.autograd.backward(outputs.square().sum())
    assert all(relaxed_layer(network, name).masks.grad.abs().sum() > 0 for name in names)  # type: ignore[union-attr]


class Words(nn.Module):
    """A table that the output layer is tied to, an attention and a recurrence inside modules that are opened."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(30, 16), nn.Linear(16, 30, bias=False)
        self.block, self.recurrent = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True), nn.LSTM(16, 16)
        self.out.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.recurrent(self.block(self.embedding(ids)))[0])  # type: ignore[no-any-return]


def test_tied_and_opened_layers_are_relaxed_where_they_are_used() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        words, ids = Words().eval(), torch.randint(0, 30, (6, 8))
    table = rs.options(words, [ids], example=ids[:1], layers={"factorizations": ["svd"]})
    network = relaxed_network(words, table, list(table.of))
    for path in layer_paths(table, lambda option: float(option.params)):
        (name,) = path.options[0].choices
        relaxed = relaxed_layer(network, name)
        relaxed.weight_of = weights_between(table, name, [each.choices[name] for each in path.options])
        relaxed.masks = torch.ones(len(path.prices), dtype=torch.float64)
    assert torch.allclose(network(ids), words(ids), atol=1e-4)
    found = rs.continuous_ranks(words, table, [ids], macs=0.7, steps=2)
    assert found.macs <= 0.7 * found.dense["macs"]

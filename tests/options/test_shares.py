"""Errors of the loss: what the layers' gradients make of their fits, and how much each layer counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.layers.metric import DAMPING
from rank_search.tasks import LossAlone, loss_moments
from tests.options.labelled import Pair, labelled, loss
from tests.options.test_of_model import X, network


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    return network()


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return labelled()


@pytest.fixture(scope="module")
def table(model: nn.Sequential, pairs: list[Pair]) -> rs.OptionTable:
    return rs.options(model, pairs, example=X, loss=loss)


def test_an_error_is_the_predicted_rise_of_the_loss_with_a_mean_of_one(
    model: nn.Sequential, pairs: list[Pair], table: rs.OptionTable
) -> None:
    seen = loss_moments(LossAlone(model, X, pairs, loss), model, table.fits.layers, len(pairs))

    def rise(layer: str, other: Tensor) -> float:
        weight = model.get_submodule(layer).get_parameter("weight").detach()
        D, C, G = (each.double() for each in ((weight - other).flatten(1), seen.inputs[layer], seen.gradients[layer]))
        G = G + DAMPING * G.diagonal().mean() * torch.eye(len(G))
        return float(torch.einsum("ab,bj,jk,ak->", G, D, C, D))

    lost = {name: rise(name, torch.zeros(layer.shape)) for name, layer in table.fits.layers.items()}
    mean = sum(lost.values()) / len(lost)
    for option in [each for options in table.of.values() for each in options[1::9]]:
        ((layer, choice),) = option.choices.items()
        form = rs.factorize(model, {layer: choice}, table).get_submodule(layer)
        assert isinstance(form, rs.Factorization)
        assert option.error == pytest.approx(rise(layer, form.dense().detach()) / mean, rel=1e-3, abs=1e-5), option


def test_without_a_loss_every_layer_counts_the_same(model: nn.Sequential, pairs: list[Pair]) -> None:
    plain = rs.options(model, pairs, example=X)
    for layer, options in plain.of.items():
        for each in options:
            assert each.error == plain.fits(layer, each.choices[layer]) <= 1


def test_errors_of_the_loss_are_kept_apart_from_those_of_the_outputs(
    model: nn.Sequential, pairs: list[Pair], table: rs.OptionTable, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("kept")
    plain = [each.error for each in rs.options(model, pairs, example=X)]
    for _ in range(2):
        assert [each.error for each in rs.options(model, pairs, example=X, cache=folder)] == plain
        kept = rs.options(model, pairs, example=X, cache=folder, loss=loss)
        assert [each.error for each in kept] == [each.error for each in table]


def of_predictions(model: nn.Module, batch: Pair) -> Tensor:
    logits = model(batch[0])
    return nn.functional.cross_entropy(logits, torch.distributions.Categorical(logits=logits).sample())


def test_with_sampled_targets_no_label_plays_a_part_but_in_cuts(
    model: nn.Sequential, pairs: list[Pair], table: rs.OptionTable, tmp_path: Path
) -> None:
    others = [(x, y.roll(1)) for x, y in pairs]
    rs.options(model, pairs, example=X, loss=loss, cache=tmp_path)
    how: dict[str, Any] = {"example": X, "sampled_loss": of_predictions, "cache": tmp_path}
    found, again = ([each.error for each in rs.options(model, batches, **how)] for batches in (pairs, others))
    assert found == again
    assert found != [each.error for each in table]
    cut, other = (rs.options(model, batches, loss=loss, cuts=1, **how) for batches in (pairs, others))
    assert cut.fits.shares != other.fits.shares


class Sum(nn.Module):
    """Two layers that see the same; of the second the loss sees a hundredth."""

    def __init__(self) -> None:
        super().__init__()
        self.much, self.little = nn.Linear(24, 24), nn.Linear(24, 24)
        with torch.no_grad():
            self.little.weight.copy_(self.much.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.much(x) + 0.01 * self.little(x)  # type: ignore[no-any-return]


def test_an_allocation_takes_from_what_the_loss_hardly_sees() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model, x = Sum(), torch.randn(64, 24)
    pairs = [(x, torch.arange(64) % 24)]
    chosen = {}
    for name, how in (("outputs", None), ("loss", loss)):
        table = rs.options(model, pairs, example=x[:1], loss=how)
        layers = rs.allocate(table, params=0.6).layers
        chosen[name] = [table.costs.layer_cost(each, layers[each]).params for each in ("much", "little")]
    assert abs(chosen["outputs"][0] - chosen["outputs"][1]) < 100
    assert chosen["loss"][0] == 600
    assert chosen["loss"][1] < 150

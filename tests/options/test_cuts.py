"""Cuts of single layers, measured by the loss: what they make of the errors, and what they cost."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.options.cuts import CutMeasure, calibrated
from rank_search.tasks import LossAlone
from tests.options.labelled import Pair, labelled, loss
from tests.options.test_of_model import X, network


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    return network()


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return labelled()


def measured(model: nn.Module, pairs: list[Pair]) -> float:
    with torch.no_grad():
        return fmean(float(loss(model, pair)) for pair in pairs)


def closest(options: tuple[rs.Option, ...], share: float) -> rs.Option:
    small = [each for each in options[1:] if each.params <= share * options[0].params]
    return sorted(small, key=lambda each: each.error)[0]


@pytest.mark.parametrize("count", [1, 2])
def test_errors_are_in_the_proportions_of_the_rises(model: nn.Sequential, pairs: list[Pair], count: int) -> None:
    plain = rs.options(model, pairs, example=X, loss=loss)
    found = rs.options(model, pairs, example=X, loss=loss, cuts=count)
    dense, products = measured(model, pairs), {}
    for name, options in plain.of.items():
        products[name] = 1.0
        for share in [(count - number) / (count + 1) for number in range(count)]:
            option = closest(options, share)
            small = rs.factorize(model, option.choices, plain, pairs)
            products[name] *= (measured(small, pairs) - dense) / option.error
    assert min(products.values()) > 0
    for name, options in plain.of.items():
        others = found.fits.shares[name] / plain.fits.shares[name]
        for now, then in zip(found.of[name], options, strict=True):
            assert now.error == pytest.approx(others * then.error, rel=1e-4)
        first = next(iter(plain.of))
        scale = found.fits.shares[first] / plain.fits.shares[first] / products[first] ** (1 / count)
        assert others == pytest.approx(scale * products[name] ** (1 / count), rel=1e-3)
    assert fmean(found.fits.shares.values()) == pytest.approx(1, rel=1e-4)


def test_cuts_are_counted_and_kept(model: nn.Sequential, pairs: list[Pair], tmp_path: Path) -> None:
    """One evaluation of the dense model, and one of each cut the first time."""
    evaluations: list[float] = []

    def counted(model: nn.Module, batch: Pair) -> Tensor:
        if not torch.is_grad_enabled() and not any(
            isinstance(each, nn.BatchNorm2d) and each.training for each in model.modules()
        ):
            evaluations.append(1 / len(pairs))
        return loss(model, batch)

    shares = []
    for expected in (1 + 2 * 2, 1):
        evaluations.clear()
        table = rs.options(
            model, pairs, example=X, loss=counted, cuts=2, cache=tmp_path, layers={"include": ["3", "8"]}
        )
        assert sum(evaluations) == pytest.approx(expected)
        shares.append(table.fits.shares)
    assert shares[0] == shares[1]


def test_no_cut_measures_nothing(model: nn.Sequential, pairs: list[Pair]) -> None:
    plain = rs.options(model, pairs, example=X, loss=loss)
    assert [each.error for each in rs.options(model, pairs, example=X, loss=loss, cuts=0)] == [
        each.error for each in plain
    ]


class Sum(nn.Module):
    """Two layers that see the same; of the second the loss sees a tenth, of the third nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.much, self.little, self.nothing = (nn.Linear(24, 24) for _ in range(3))
        with torch.no_grad():
            for each in (self.little, self.nothing):
                each.weight.copy_(self.much.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.much(x) + 0.1 * self.little(x) + 0 * self.nothing(x)  # type: ignore[no-any-return]


def test_errors_of_the_outputs_can_be_calibrated_too_and_a_layer_without_a_rise_counts_least() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model, x = Sum(), torch.randn(256, 24)
    with torch.no_grad():
        targets = (3 * model(x)).softmax(-1).multinomial(1, generator=torch.Generator().manual_seed(0))[:, 0]
    pairs = [(3 * x, targets)]
    table = rs.options(model, pairs, example=x[:1])
    assert table.fits.shares == {}
    bases = {name: table.fits.bases(name) for name in table.fits.layers}
    measure = CutMeasure(LossAlone(model, x[:1], pairs, loss), model, bases, 1)  # type: ignore[arg-type]
    shares = calibrated(table, measure, 1).fits.shares
    assert shares["much"] > 3 * shares["little"] > 0
    assert shares["little"] >= shares["nothing"] > 0

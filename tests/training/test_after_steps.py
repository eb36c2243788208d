"""What a factorization moves itself: no optimizer does, and the shares of the training are one in all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from rank_search_plugins.svd import ChannelSVD
from torch import Tensor, nn

from rank_search.errors import ContractError
from rank_search.layers import DirectBases, Layer, factorize, take_inventory
from rank_search.point import Choice, Point
from rank_search.tasks import Supervised, seeded
from rank_search.training import FineTuning, Trainer, TrainingSettings
from rank_search.training.after_steps import AfterSteps, apart_ids
from tests.stripes_task import loader


class Counting(ChannelSVD):
    """Its gain is its own to move: it notes the shares, and the gradients that it is given."""

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.gain = self.factor(1)
        self.shares: list[float] = []
        self.gradients: list[Tensor] = []

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Any) -> None:
        super().fit(weight, bases)
        self.gain.fill_(1.0)

    def dense(self) -> Tensor:
        return super().dense() * self.gain

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.operate(x, self.dense(), self.bias)

    def apart(self) -> Iterable[nn.Parameter]:
        return (self.gain,)

    def after_step(self, share: float) -> None:
        self.shares.append(share)
        assert self.gain.grad is not None
        self.gradients.append(self.gain.grad.clone())


class Broken(Counting):
    def after_step(self, share: float) -> None:
        raise ZeroDivisionError


def network() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))


def made(plugin: type[Counting] = Counting, **training: Any) -> tuple[Trainer, Counting]:
    with seeded(0):
        dense = network().eval()
    task = Supervised(dense, loader(120, 1, 30), loader(60, 2, 30), loader(60, 2, 30))
    layers = take_inventory(dense, task.example()).layers
    bases = {name: DirectBases(dense.get_submodule(name).get_parameter("weight")) for name in layers}
    model = factorize(dense, Point({"1": Choice("own", {"rank": 3})}), layers, {"own": plugin}, bases.__getitem__)
    form = model.get_submodule("1")
    assert isinstance(form, Counting)
    settings = TrainingSettings.model_validate({"epochs": 2.5, **training})
    return Trainer(task, model, FineTuning(settings)), form


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "constant"])
def test_shares_are_those_of_the_learning_rates_and_one_in_all(schedule: str) -> None:
    training, form = made(schedule=schedule)
    training.advance(1.0)
    assert len(form.shares) == 4
    training.advance(2.5)
    assert len(form.shares) == 10
    assert sum(form.shares) == pytest.approx(1.0)
    if schedule == "constant":
        assert form.shares == pytest.approx([0.1] * 10)
    if schedule == "cosine":
        assert form.shares == sorted(form.shares, reverse=True)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_no_optimizer_moves_what_is_apart(optimizer: str) -> None:
    training, form = made(optimizer=optimizer, weight_decay=0.5)
    before = form.left.detach().clone()
    training.advance(1.0)
    assert form.gain.tolist() == [1.0]
    assert not torch.equal(form.left, before)
    assert form.gain.grad is None


def test_its_gradient_is_that_of_the_step_and_not_clipped() -> None:
    """Weights hardly move, so the first batch has the same gradient in both passes, whatever the clipping."""
    found = []
    for clip in (1e-6, float("inf")):
        training, form = made(gradient_clip=clip, learning_rate=1e-9)
        training.advance(2.0)
        first, _, _, _, again, *_ = (float(each) for each in form.gradients)
        assert abs(first) > 1e-4
        assert again == pytest.approx(first, rel=1e-3)
        found.append(first)
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_a_model_without_such_forms_has_nothing_apart() -> None:
    after = AfterSteps(network(), TrainingSettings(), 5)
    after.move_(0)
    assert apart_ids(network()) == set()


def test_an_error_names_the_factorization() -> None:
    training, _ = made(Broken)
    with pytest.raises(ContractError, match=r"after_step\(\)"):
        training.advance(0.5)

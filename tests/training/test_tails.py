"""Sparsity in an ordered training: nested tails lose norm, and what is gone at the end is drawn no more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rank_search.layers import Layer
from rank_search.tasks import Supervised, seeded
from rank_search.training import FineTuning, SparsityPenalty, Trainer, TrainingSettings
from rank_search.training.ordered_steps import OrderedSteps
from rank_search.training.shrinking import Shrinking, joint_norms, kept_shares_of_tails
from tests.emptied import drawn
from tests.training.test_ordered_steps import in_factors, tails

CONV = Layer("", "conv2d", (8, 6, 3, 3))


def tail_norms(x: Tensor) -> Tensor:
    return torch.stack([x[place:].norm() for place in range(len(x))])


def objective(x: Tensor, start: Tensor, threshold: float) -> float:
    return float((x - start).square().sum() / 2 + threshold * tail_norms(x).sum())


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("rng_seed", range(5))
def test_a_step_is_the_proximal_one_of_all_tails(threshold: float, rng_seed: int) -> None:
    generator = torch.Generator().manual_seed(rng_seed)
    start = 2 * torch.rand(5, generator=generator, dtype=torch.float64)
    found = start * kept_shares_of_tails(start, threshold)
    best = objective(found, start, threshold)
    for size in (1e-4, 1e-2, 1.0):
        for _ in range(60):
            direction = torch.randn(5, generator=generator, dtype=torch.float64)
            other = found + size * direction
            other = torch.where(torch.rand(5, generator=generator) < 0.3, 0.0, other)
            assert objective(other, start, threshold) >= best - 1e-12
    alive = int((found > 0).sum())
    assert bool((found[alive:] == 0).all()), "what is lost is lost from the end"
    norms = tail_norms(found)
    for place in range(alive):
        pull = sum(float(found[place] / norms[first]) for first in range(place + 1))
        assert float(found[place] - start[place]) + threshold * pull == pytest.approx(0.0, abs=1e-9)


def test_of_one_component_it_is_the_soft_threshold() -> None:
    assert kept_shares_of_tails(torch.tensor([4.0]), 1.0).tolist() == [0.75]
    assert kept_shares_of_tails(torch.tensor([0.0]), 1.0).tolist() == [0.0]
    assert kept_shares_of_tails(torch.zeros(3), 0.0).tolist() == [0.0, 0.0, 0.0]


def test_every_tail_of_a_form_loses_its_norm() -> None:
    form = drawn("svd", CONV, rank=4)
    before = joint_norms([(form.get_parameter("left"), 1), (form.get_parameter("right"), 0)], 4)
    left = form.get_parameter("left").detach().clone()
    Shrinking(form, SparsityPenalty(2.0, ("params",)), framed=False, of_tails=True).shrink_(0.5)
    shares = kept_shares_of_tails(before.detach(), 1.0)
    assert torch.allclose(form.get_parameter("left").detach(), left * shares)


@pytest.fixture
def task() -> Supervised:
    with seeded(0):
        inputs = torch.randn(64, 12)
        teacher = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4))
        batches = [(part, teacher(part).argmax(1)) for part in inputs.split(16)]
        return Supervised(nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4)), batches, batches)


def test_an_ordered_training_loses_ranks_from_the_end(task: Supervised) -> None:
    model = in_factors(task)
    settings = TrainingSettings(epochs=30, learning_rate=1e-2)
    with seeded(0):
        trainer = Trainer(task, model, FineTuning(settings, sparsity=SparsityPenalty(1.5), ordered=0.5))
        assert trainer.advance(30) is None
    left, right = (model.get_parameter(f"0.{name}").detach() for name in ("left", "right"))
    alive = (joint_norms([(left, 1), (right, 0)], left.shape[1]) != 0).tolist()
    count = sum(alive)
    assert 0 < count < len(alive)
    assert alive == [True] * count + [False] * (len(alive) - count)


def test_what_is_gone_at_the_end_is_drawn_no_more() -> None:
    form = drawn("svd", CONV, rank=6)
    with torch.no_grad():
        form.get_parameter("left")[:, 3:], form.get_parameter("right")[3:] = 0, 0
    steps, seen = OrderedSteps(form, 1.0), set()
    with seeded(0):
        for _ in range(60):
            seen.add(tails(form, steps.cut({}))["right.0"])
    assert seen == {1, 2}
    with torch.no_grad():
        form.get_parameter("left")[:, 1:], form.get_parameter("right")[1:] = 0, 0
    with seeded(0):
        assert steps.cut({}) == {}

"""A model that is looked at is not changed: neither in place, nor by buffers that a forward makes anew."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.layers import in_evaluation, take_inventory
from rank_search.tasks import Supervised, as_for_loss
from rank_search.training import FineTuning, TrainingSettings, fine_tune

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
PAIRS = [(X, torch.tensor([0, 1, 2, 0]))]


class Stateful(nn.Module):
    """Each forward counts itself in place, follows its inputs with a new tensor, and keeps a longer cache."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.head = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16)), nn.Linear(16, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("absent", None)
        self.register_buffer("cache", torch.zeros(1), persistent=False)
        self.calls: Tensor
        self.mean: Tensor
        self.cached = 1

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.mean = 0.5 * self.mean + 0.5 * (x.mean(0) + 3)
        if len(x) > self.cached:
            self.cached, self.cache = len(x), torch.zeros(len(x))
        out: Tensor = self.head(self.inner(x - self.mean))
        return out


def assert_untouched(model: Stateful, before: dict[str, Tensor]) -> None:
    after = model.state_dict(keep_vars=True)
    assert all(after[name] is tensor for name, tensor in before.items())
    assert float(model.calls) == 0
    assert torch.equal(model.mean, torch.zeros(8))
    assert int(model.inner[1].num_batches_tracked) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", [in_evaluation, as_for_loss])
def test_buffers_are_put_back(mode: object) -> None:
    model = Stateful()
    before = model.state_dict(keep_vars=True)
    with mode(model), torch.no_grad():  # type: ignore[operator]
        model(X)
        model(X)
        assert float(model.calls) == 2
    assert_untouched(model, before)
    assert len(model.cache) == model.cached == 4, "a cache goes with the attribute that says how long it is"


def test_buffers_are_put_back_where_a_forward_raises() -> None:
    model = Stateful()
    before = model.state_dict(keep_vars=True)
    with pytest.raises(RuntimeError), in_evaluation(model):
        model(X[:, :3])
    assert_untouched(model, before)


def test_what_moves_on_purpose_stays_moved() -> None:
    model = Stateful().eval()
    norm = model.inner[1]
    with as_for_loss(model, [norm]), torch.no_grad():
        model(X)
    assert int(norm.num_batches_tracked) == 1  # type: ignore[arg-type]
    assert float(model.calls) == 0


def test_the_option_table_and_a_teacher_leave_the_model_as_it_was() -> None:
    model = Stateful().eval()
    before = model.state_dict(keep_vars=True)
    rs.options(model, [X, X], example=X[:1])
    take_inventory(model, X[:1])
    assert_untouched(model, before)
    task, settings = Supervised(Stateful(), PAIRS, PAIRS), TrainingSettings(epochs=1, distillation=0.5)
    fine_tune(task, task.model(), FineTuning(settings, teacher=model))
    assert_untouched(model, before)

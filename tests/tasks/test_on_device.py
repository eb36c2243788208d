"""A task that knows of no device, on another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import rank_search as rs
from rank_search.errors import TaskError
from rank_search.layers import copied
from rank_search.tasks import AgreementTask, LayerErrorTask, compares_classes, on_device, to_device
from rank_search.tasks.on_device import OnDevice
from tests.far_device import FAR, far_device

META = torch.device("meta")


@dataclass
class Record:
    numbers: Tensor
    name: str


class _Noted(rs.Task):
    """A plain task with a teacher, which makes no tensor itself."""

    def __init__(self) -> None:
        self.network = nn.Linear(3, 2)
        self.teacher = nn.Linear(3, 2)
        self.asked: list[str] = []

    def model(self) -> nn.Module:
        self.asked.append("model")
        return self.network

    def example(self) -> Tensor:
        return torch.ones(1, 3)

    def training(self) -> Iterable[Any]:
        return [{"x": torch.ones(4, 3), "more": [Record(torch.zeros(2), "first"), (torch.ones(1), None)]}] * 2

    def selection(self) -> Iterable[Any]:
        return iter(self.training())

    def test(self) -> None:
        return None

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return F.mse_loss(model(batch["x"]), self.teacher(batch["x"]))

    def evaluate(self, model: nn.Module, batches: Iterable[Any]) -> Mapping[str, float]:
        return {"error": sum(float(self.loss(model, each).detach()) for each in batches)}


def test_every_method_of_a_task_is_handed_on() -> None:
    methods = {name for name, each in vars(rs.Task).items() if callable(each) and not name.startswith("_")}
    assert methods - vars(OnDevice).keys() == set()


def test_batches_are_moved_whatever_they_are_made_of() -> None:
    packed = pack_sequence([torch.ones(3, 2), torch.ones(2, 2)])
    batch = {"pair": (torch.ones(2), [Record(torch.ones(1), "first")]), "packed": packed, "count": 3}
    moved = to_device(batch, META)
    assert moved["pair"][0].is_meta
    assert moved["pair"][1][0].numbers.is_meta
    assert moved["pair"][1][0].name == "first"
    assert isinstance(moved["packed"], PackedSequence)
    assert moved["packed"].data.is_meta
    assert moved["packed"].batch_sizes.device.type == "cpu"  # as PyTorch wants it
    assert moved["count"] == 3
    assert not batch["pair"][1][0].numbers.is_meta  # the user's own stays


def test_a_task_with_a_teacher_computes_there_and_the_users_objects_stay() -> None:
    task = _Noted()
    here = task.evaluate(task.network, task.selection())
    with far_device():
        moved = on_device(task, FAR)
        model = moved.model()
        assert moved.model() is model
        assert {each.device for each in model.parameters()} == {FAR}
        assert moved.example().device == FAR
        assert moved.evaluate(model, moved.selection()) == here
        moved.loss(model, next(iter(moved.training()))).backward()
        assert model.weight.grad is not None
        assert model.weight.grad.device == FAR
    assert task.asked == ["model"]
    assert {each.device.type for each in [*task.network.parameters(), *task.teacher.parameters()]} == {"cpu"}
    assert task.network.weight.grad is None


def test_a_loss_with_weights_of_the_classes_goes_along() -> None:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]))
    batches = [(torch.ones(4, 3), torch.tensor([0, 1, 1, 0]))]
    task = rs.Supervised(nn.Linear(3, 2), batches, batches, loss_function=loss)
    with far_device():
        moved = on_device(task, FAR)
        found = moved.loss(moved.model(), next(iter(moved.training()))).item()
    assert found == pytest.approx(task.loss(task.network, batches[0]).item())
    assert compares_classes(moved, torch.zeros(3, 2))


def test_passes_know_their_number_if_the_users_do() -> None:
    moved = on_device(_Noted(), META)
    assert len(moved.training()) == 2  # type: ignore[arg-type]
    assert not hasattr(moved.selection(), "__len__")


def test_shared_tensors_stay_shared_and_what_is_no_parameter_is_moved() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)
            self.last.weight = self.first.weight
            self.plain = torch.arange(3.0)
            self.first.weight.requires_grad_(False)

    network = Tied()
    batches = [(torch.ones(1, 3), torch.ones(1, 3))]
    model = on_device(rs.Supervised(network, batches, batches), META).model()
    assert model.first.weight is model.last.weight
    assert not model.first.weight.requires_grad
    assert model.first.bias.requires_grad
    assert model.plain.is_meta


def test_a_constant_on_the_cpu_is_named_with_what_to_do() -> None:
    batches = [(torch.ones(4, 3), torch.zeros(4, 2))]
    task = rs.Supervised(
        nn.Linear(3, 2), batches, batches, loss_function=lambda outputs, targets: (outputs * torch.ones(2)).sum()
    )
    with far_device():
        moved = on_device(task, FAR)
        with pytest.raises(TaskError, match=r"loss\(\) computes with tensors of two devices: .*device=outputs\.device"):
            moved.loss(moved.model(), next(iter(moved.training())))


def test_agreement_is_measured_there() -> None:
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
    other = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
    batches = [torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    task = AgreementTask(network, batches, batches, one_example=batches[0][:1])
    with torch.no_grad():
        here = task.evaluate(other, task.selection())
        with far_device():
            moved = on_device(task, FAR)
            assert isinstance(moved, AgreementTask)
            there = moved.evaluate(to_device(copied(other), FAR), moved.selection())
    assert there == here


def test_layer_errors_are_measured_there() -> None:
    network, other = nn.Linear(3, 4), nn.Linear(3, 4)
    task = LayerErrorTask(nn.Sequential(network), torch.ones(1, 3))
    here = task.evaluate(nn.Sequential(other), task.selection())
    with far_device():
        moved = on_device(task, FAR)
        assert isinstance(moved, LayerErrorTask)
        assert moved.evaluate(nn.Sequential(copied(other)).to(FAR), moved.selection()) == here


def test_moments_that_follow_from_the_network_are_there_once() -> None:
    network = nn.Sequential(nn.Linear(3, 4))
    known = {"0": torch.eye(3)}
    task = LayerErrorTask(network, torch.ones(1, 3), lambda layers: known)
    with far_device():
        moved = on_device(task, FAR)
        assert isinstance(moved, LayerErrorTask)
        assert moved.known_moments["0"].device == FAR
        assert moved.known_moments is moved.known_moments
    assert task.known_moments["0"] is known["0"]


def test_back_on_the_cpu_nothing_is_left_there() -> None:
    task = _Noted()
    with far_device():
        there = on_device(task, FAR)
        here = on_device(there, torch.device("cpu"))
    assert {each.device.type for each in here.model().parameters()} == {"cpu"}
    assert here.evaluate(here.model(), here.selection()) == task.evaluate(task.network, task.selection())

"""Which device a process computes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch
from pydantic import ValidationError
from torch import nn

import rank_search as rs
from rank_search.errors import LaunchError
from rank_search.launch import LaunchSettings
from rank_search.study import device_of, placed


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A machine with two of them, as far as anybody asks; returned are those that became the current one."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    monkeypatch.setattr("rank_search.study.placing.on_device", lambda task, device: (task, device))
    return current


def _task() -> rs.Supervised:
    batches = [(torch.ones(4, 3), torch.zeros(4, dtype=torch.long))]
    return rs.Supervised(nn.Linear(3, 2), batches, batches)


@pytest.mark.parametrize("wanted", ["auto", "cpu"])
def test_without_a_gpu_nothing_changes(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    task = _task()
    assert placed(task, task.network, wanted, place=3) is task


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_workers_take_the_gpus_in_turn(wanted: str, two_gpus: list[torch.device]) -> None:
    assert [device_of(wanted, place).index for place in range(5)] == [0, 1, 0, 1, 0]


def test_the_gpu_that_is_named_is_that_of_all_workers(two_gpus: list[torch.device]) -> None:
    assert {device_of("cuda:1", place) for place in range(5)} == {torch.device("cuda:1")}


def test_the_workers_gpu_is_its_current_one_and_is_told(
    two_gpus: list[torch.device], caplog: pytest.LogCaptureFixture
) -> None:
    task = _task()
    with caplog.at_level(logging.INFO, "rank_search.steps"):
        assert placed(task, task.network, "auto", place=1) == (task, torch.device("cuda:1"))
    assert two_gpus == [torch.device("cuda:1")]
    assert "Models and batches go to cuda:1, which is GPU 1" in caplog.text


def test_on_the_cpu_of_a_machine_with_gpus_nothing_changes(two_gpus: list[torch.device]) -> None:
    task = _task()
    assert placed(task, task.network, "cpu") is task
    assert two_gpus == []


class There(nn.Module):
    """A model with a parameter on each of these devices, as far as anybody asks."""

    def __init__(self, *devices: str) -> None:
        super().__init__()
        self.held = [torch.ones(1).as_subclass(_tensor_on(each)) for each in devices]

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        return iter(self.held)  # type: ignore[arg-type]


def _tensor_on(device: str) -> type[torch.Tensor]:
    return type("There", (torch.Tensor,), {"device": torch.device(device), "is_meta": device == "meta"})


def test_auto_is_the_gpu_where_a_task_puts_its_model_itself(two_gpus: list[torch.device]) -> None:
    task = _task()
    assert placed(task, There("cuda:1"), "auto", place=0) == (task, torch.device("cuda:1"))
    assert two_gpus == [torch.device("cuda:1")]
    assert placed(task, There("cuda:1"), "cuda:0") == (task, torch.device("cuda:0"))
    assert placed(task, There("cuda:1"), "cpu") == (task, torch.device("cpu"))


@pytest.mark.parametrize("devices", [("cuda:0", "cuda:1"), ("cuda:0", "cpu"), ("cuda:0", "meta")])
def test_auto_leaves_a_model_alone_that_is_on_several_devices(
    devices: tuple[str, ...], two_gpus: list[torch.device]
) -> None:
    task = _task()
    assert placed(task, There(*devices), "auto") is task
    assert two_gpus == []


@pytest.mark.parametrize("count", [0, 1])
def test_auto_takes_a_model_away_from_metal(
    count: int, two_gpus: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    task = _task()
    assert placed(task, There("mps"), "auto") == (task, torch.device("cuda:0" if count else "cpu"))


def test_a_device_that_is_not_here_is_refused_with_what_is(two_gpus: list[torch.device]) -> None:
    with pytest.raises(LaunchError, match=r"cuda:2.*PyTorch sees 2 GPUs, cuda:0 to cuda:1, here"):
        device_of("cuda:2")


def test_cuda_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(LaunchError, match='"cuda": PyTorch sees no GPU here'):
        device_of("cuda", place=1)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:11"])
def test_devices(device: str) -> None:
    assert LaunchSettings(device=device).device == device


@pytest.mark.parametrize(
    ("device", "said"), [("mps", "no float64"), ("gpu", 'a device is "auto"'), ("cuda:", "cuda:"), ("cuda:-1", "cuda:")]
)
def test_other_devices_are_refused(device: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LaunchSettings(device=device)

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rank_search.trials import LatencySettings
from rank_search.trials.latency import (
    clock_for,
    interleaved_ratio,
    measure_latency,
    measure_latency_ratio,
    waited_for,
)


@dataclass
class Time:
    """A clock that only runs of known length move on; the machine's speed may change from run to run."""

    speed: Callable[[int], float] = lambda run: 1.0
    now: float = 0.0
    order: list[str] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def run(self, name: str, seconds: float) -> Callable[[], None]:
        def take() -> None:
            self.now += seconds * self.speed(len(self.order))
            self.order.append(name)

        return take


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.integers(1, 40))
def test_the_latency_ratio_on_a_steady_machine_is_that_of_the_run_times(
    first: float, second: float, pairs: int
) -> None:
    time = Time()
    found = interleaved_ratio(time.run("A", first), time.run("B", second), pairs, time)
    assert found == pytest.approx(second / first)


def test_the_order_of_the_two_models_is_swapped_from_pair_to_pair() -> None:
    time = Time()
    interleaved_ratio(time.run("A", 0.1), time.run("B", 0.1), 4, time)
    assert "".join(time.order[-8:]) == "ABBAABBA"


def test_both_models_are_warmed_up_before_the_first_pair() -> None:
    time = Time()
    interleaved_ratio(time.run("A", 0.1), time.run("B", 0.1), 4, time)
    assert sorted(time.order[:-8]) == ["A"] * 3 + ["B"] * 3


def test_a_short_run_is_timed_in_blocks_of_two_milliseconds() -> None:
    time = Time()
    found = interleaved_ratio(time.run("A", 0.0005), time.run("B", 0.001), 2, time)
    assert "".join(time.order[-16:]) == "AAAABBBBBBBBAAAA"
    assert found == pytest.approx(2)


def test_the_latency_ratio_ignores_a_machine_that_is_slow_for_a_while() -> None:
    time = Time(speed=lambda run: 3.0 if 40 <= run < 60 else 1.0)
    found = interleaved_ratio(time.run("A", 0.1), time.run("B", 0.07), 30, time)
    assert found == pytest.approx(0.7)


def test_the_latency_ratio_hardly_changes_on_a_machine_that_slows_down_steadily() -> None:
    time = Time(speed=lambda run: 1 + run / 20)
    found = interleaved_ratio(time.run("A", 0.1), time.run("B", 0.1), 30, time)
    assert found == pytest.approx(1, abs=0.02)


def test_the_latency_ratio_ignores_single_runs_that_are_disturbed() -> None:
    time = Time(speed=lambda run: 10.0 if run % 7 == 0 else 1.0)
    found = interleaved_ratio(time.run("A", 0.1), time.run("B", 0.05), 40, time)
    assert found == pytest.approx(0.5)


def test_the_latency_ratio_is_one_on_a_clock_that_stands_still() -> None:
    assert interleaved_ratio(lambda: None, lambda: None, 3, lambda: 0.0) == 1


class Slow(nn.Module):
    """Takes its time on a clock, and notes the batch, the threads and the gradients of each forward."""

    def __init__(self, time: Time, seconds: float) -> None:
        super().__init__()
        self.take, self.seen = time.run("", seconds), set[tuple[int, int, bool]]()

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        self.take()
        self.seen.add((len(x), torch.get_num_threads(), torch.is_grad_enabled()))
        return x if y is None else x + y

    def __deepcopy__(self, memo: object) -> Slow:
        return self


EXAMPLES = [torch.zeros(1, 3), (torch.zeros(1, 3), torch.ones(1, 3))]


@pytest.mark.parametrize("example", EXAMPLES)
def test_latency_is_measured_with_the_stated_batch_and_threads(example: Tensor | tuple[Tensor, ...]) -> None:
    time, before = Time(), torch.get_num_threads()
    settings = LatencySettings(batch=4, threads=before + 1, repeats=5)
    one, other = Slow(time, 0.25), Slow(time, 0.5)
    assert measure_latency(one, example, settings, time) == 0.25
    assert measure_latency_ratio(one, other, example, settings, time) == 2
    assert (4, before + 1, False) in one.seen & other.seen
    assert torch.get_num_threads() == before


def test_threads_come_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(TypeError):
        measure_latency(nn.Linear(2, 2), (torch.zeros(1, 2), torch.zeros(1, 2)), LatencySettings(threads=before + 1))
    assert torch.get_num_threads() == before


def test_measuring_latency_does_not_change_the_models() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = copy.deepcopy(model.state_dict())
    example = torch.randn(1, 3, 8, 8)
    assert measure_latency_ratio(model, model, example, LatencySettings(repeats=1)) > 0
    assert model.training
    assert model[0].weight.is_contiguous()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_gpu_is_waited_for_and_timed_by_the_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(torch.cuda, "synchronize", done.append)
    gpu = torch.device("cuda:1")
    there = type("There", (torch.Tensor,), {"is_cuda": True, "device": gpu})()
    waited_for(lambda: done.append("run"), {"x": there, "more": [there]})()
    assert done == ["run", gpu]
    assert clock_for(LatencySettings(threads=1), there) is time.perf_counter


def test_on_the_cpu_of_a_machine_with_a_gpu_nothing_else_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def run() -> None:
        return

    assert waited_for(run, torch.ones(1)) is run
    assert clock_for(LatencySettings(threads=1), torch.ones(1)) is time.thread_time
    assert clock_for(LatencySettings(threads=2), torch.ones(1)) is time.perf_counter

"""Everything measured on a model: the task's own numbers, parameters, MACs, bits and latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rank_search.layers import Example, count_macs, count_params, forward
from rank_search.trials.settings import LatencySettings
from rank_search.trials.task import Task, asked, task_measurements


def measure(task: Task, model: nn.Module, coded_bytes: int, latency: LatencySettings | None = None) -> dict[str, float]:
    """All measurements of a model on the selection data; the model ends in eval mode.

    `params` and `macs` are counted (macs on the task's example), `bits` is eight times the length of the coded
    model, `latency` (seconds) is there only if asked for; the rest is what the task measures.

    Raises:
        TaskError: the task's answers cannot be used.
    """
    model.eval()
    example = task.example()
    measured = task_measurements(task, model, task.selection(), "selection data")
    measured |= {
        "params": float(count_params(model)),
        "macs": float(count_macs(model, [example])),
        "bits": 8.0 * coded_bytes,
    }
    return measured if latency is None else measured | {"latency": measure_latency(model, example, latency)}


def test_measurements(task: Task, model: nn.Module) -> dict[str, float]:
    """The task's measurements on the test data, each named `test_…`: never shown to a search.

    Raises:
        TaskError: the task raises, or its answers cannot be used.
    """
    model.eval()
    with asked("test() or evaluate()"):
        found: Mapping[str, float] = task_measurements(task, model, task.test(), "test data")
    return {f"test_{name}": value for name, value in found.items()}


test_measurements.__test__ = False  # type: ignore[attr-defined]  # so that pytest does not collect it


@torch.no_grad()
def measure_latency(model: nn.Module, example: Example, settings: LatencySettings) -> float:
    """Median seconds of a forward of `settings.batch` examples on `settings.threads` threads, after a warm-up.

    The number of threads is put back afterwards. On an accelerator the model is waited for.
    """
    batch = _repeated(example, settings.batch)
    with threads(settings.threads):
        for _ in range(max(3, settings.repeats // 10)):
            forward(model, batch)
        return statistics.median(_seconds(model, batch) for _ in range(settings.repeats))


def _seconds(model: nn.Module, batch: Example) -> float:
    _wait()
    start = time.perf_counter()
    forward(model, batch)
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _repeated(example: Example, times: int) -> Example:
    if isinstance(example, Tensor):
        return torch.cat([example] * times)
    return tuple(torch.cat([part] * times) for part in example)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch with so many threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""What is measured on a model, except its latency: the task's own numbers, parameters, nonzeros, MACs and bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from torch import nn

from rank_search.layers import Example, count_nonzeros, count_params, mean_macs
from rank_search.tasks import Task, task_errors, task_measurements

_TEST: Final = "test_"


def measure(task: Task, model: nn.Module, coded_bytes: int, examples: Sequence[Example] = ()) -> dict[str, float]:
    """All measurements of a model on the selection data; the model ends in eval mode.

    `params`, `nonzeros` and `macs` are counted (macs as the mean of the examples, or on the task's one), `bits` is
    eight times the length of the coded model, `bits_per_sample` its share of the samples of the one signal that it
    stands for, if it does; the rest is what the task measures.

    Raises:
        TaskError: the task's answers cannot be used.
    """
    model.eval()
    measured = task_measurements(task, model, task.selection(), "selection data")
    return measured | {
        "params": float(count_params(model)),
        "macs": float(mean_macs(model, examples or [task.example()])),
        **coded_sizes(task, coded_bytes),
        "nonzeros": float(count_nonzeros(model)),
    }


def coded_sizes(task: Task, coded_bytes: int) -> dict[str, float]:
    """The bits of a coded model; for each sample, too, where it stands for one signal."""
    bits, samples = 8.0 * coded_bytes, task.signal_samples()
    return {"bits": bits} | ({} if samples is None else {"bits_per_sample": bits / samples})


def test_measurements(task: Task, model: nn.Module) -> dict[str, float]:
    """The task's measurements on the test data, each named `test_…`: never shown to a search. None without such data.

    Raises:
        TaskError: the task raises, or its answers cannot be used.
    """
    model.eval()
    with task_errors("test() or evaluate()"):
        batches = task.test()
        found: Mapping[str, float] = {}
        if batches is not None:
            found = task_measurements(task, model, batches, "test data")
    return {f"{_TEST}{name}": value for name, value in found.items()}


def on_test(measurements: Mapping[str, float]) -> dict[str, float]:
    """Those that were measured on the test data: names that begin with `test_`, once the rest of one is there, too.

    There may be more of them than of the selection data, which can be without labels. What has a `test_` measurement of
    its own is of the selection data, whatever its name.

    >>> on_test({"error": 0.1, "macs": 9.0, "test_error": 0.2})
    {'test_error': 0.2}
    >>> on_test({"kl": 0.1, "test_kl": 0.2, "test_error": 0.3}), on_test({"error": 0.1, "test_strip": 0.2})
    ({'test_kl': 0.2, 'test_error': 0.3}, {})
    """
    named = {name for name in measurements if name.startswith(_TEST)}
    if not any(name.removeprefix(_TEST) in measurements for name in named):
        return {}
    of_selection = {name for name in named if f"{_TEST}{name}" in measurements}
    return {name: value for name, value in measurements.items() if name in named - of_selection}


test_measurements.__test__ = False  # type: ignore[attr-defined]  # so that pytest does not collect it

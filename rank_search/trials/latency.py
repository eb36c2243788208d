"""Latency as it is deployed, compared in pairs: a shared machine changes its speed, but not between two neighbors."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import nn

from rank_search.layers import Example, channels_last, deployed, forward, repeated, tensors_of, with_tensors
from rank_search.trials.settings import LatencySettings

LATENCY: Final = "latency"
LATENCY_RATIO: Final = "latency_ratio"
"""Names of the two measurements: seconds, and the trial's in units of the dense model's."""

Clock = Callable[[], float]
"""Seconds since whenever, as `time.perf_counter`."""

Run = Callable[[], object]
"""What is timed."""

_SHORTEST: Final = 2e-3  # seconds; a shorter block of runs would be as long as what disturbs it


def interleaved_ratio(first: Run, second: Run, pairs: int, clock: Clock = time.perf_counter) -> float:
    """How long `second` takes in units of `first`: the median over pairs of the ratio of two neighboring timings.

    The order is swapped from pair to pair: first second, second first, first second, … What slows the machine down
    for longer than a pair slows both, and falls out of the ratio; what hits one of the two is an outlier, which the
    median ignores. A timing is a block of equally many runs, at least 2 ms long for `first`, after a warm-up of both.

    Edge cases: a clock that stands still gives 1 (nothing can be told apart).
    Complexity: 2·pairs blocks, and at most a tenth of that (at least 3 blocks of each) to warm up.

    >>> ticks = iter(range(1_000_000))
    >>> interleaved_ratio(lambda: next(ticks), lambda: [next(ticks) for _ in range(3)], 5, lambda: next(ticks))
    2.0
    """
    block = _block(first, second, pairs, clock)
    ratios = []
    for pair in range(pairs):
        swapped = pair % 2 == 1
        seconds = [_seconds(run, block, clock) for run in ((second, first) if swapped else (first, second))]
        one, other = reversed(seconds) if swapped else seconds
        ratios.append(other / one if one > 0 else 1.0)
    return statistics.median(ratios)


def _block(first: Run, second: Run, pairs: int, clock: Clock) -> int:
    """Warms both up; gives how many runs of the first take long enough to be timed."""
    warm = max(3, pairs // 10)
    for _ in range(warm):
        second()
    shortest = min(_seconds(first, 1, clock) for _ in range(warm))
    return max(1, math.ceil(_SHORTEST / max(shortest, 1e-6)))


def _seconds(run: Run, times: int, clock: Clock) -> float:
    start = clock()
    for _ in range(times):
        run()
    return clock() - start


@torch.no_grad()
def measure_latency_ratio(
    dense: nn.Module, model: nn.Module, example: Example, settings: LatencySettings, clock: Clock | None = None
) -> float:
    """Latency of a model in units of the dense model's, both as they would be deployed (see `deployed`).

    `settings.repeats` times two pairs, of `settings.batch` examples on `settings.threads` threads; the number of
    threads is put back afterwards. Models and example are on one device. One thread on the CPU is timed by its own
    clock, which stands while others run; several, and a GPU, which is waited for after each forward, by the clock on
    the wall: what it takes to give a GPU its work is a part of the latency.
    """
    first, second = deployed(dense, model, example=example)
    with threads(settings.threads):
        batch = batch_of(example, settings.batch)
        runs = _forward(first, batch), _forward(second, batch)
        return interleaved_ratio(*runs, 2 * settings.repeats, clock or clock_for(settings, batch))


@torch.no_grad()
def measure_latency(model: nn.Module, example: Example, settings: LatencySettings, clock: Clock | None = None) -> float:
    """Median seconds of a forward of the model as it would be deployed, after a warm-up; settings as for the ratio."""
    (model,) = deployed(model, example=example)
    with threads(settings.threads):
        batch = batch_of(example, settings.batch)
        run = _forward(model, batch)
        for _ in range(max(3, settings.repeats // 10)):
            run()
        clock = clock or clock_for(settings, batch)
        return statistics.median(_seconds(run, 1, clock) for _ in range(settings.repeats))


def clock_for(settings: LatencySettings, inputs: Example) -> Clock:
    """The CPU time of this thread where that is all there is to time, else wall time."""
    alone = settings.threads == 1 and not _waits(inputs)
    return time.thread_time if alone else time.perf_counter


def _forward(model: nn.Module, batch: Example) -> Run:
    return waited_for(lambda: forward(model, batch), batch)


def waited_for(run: Run, inputs: Example) -> Run:
    """The run until it has ended where its inputs are: what a GPU is given it computes when it comes to it."""
    devices = _waits(inputs)
    if not devices:
        return run

    def ended() -> None:
        run()
        for each in devices:
            torch.cuda.synchronize(each)

    return ended


def _waits(inputs: Example) -> set[torch.device]:
    """The devices that have to be waited for."""
    return {each.device for each in tensors_of(inputs) if each.is_cuda}


def batch_of(example: Example, times: int) -> Example:
    """That many copies of the example in one batch, images in channels-last memory."""
    return with_tensors(repeated(example, times), channels_last)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch with that many threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

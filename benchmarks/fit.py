"""A warm Tucker-2 fit (slices of cached bases) against `tensorly.decomposition.partial_tucker`.

Run: python benchmarks/fit.py      (one process, one thread)

Kernels: a Tucker-2 tensor with spectra decaying as i^-p in both channel modes (trained layers look like p = 1/2 or
flatter), plus noise of a tenth of its norm. Both are asked for ranks of a quarter and of half of the channels.
"Warm": the bases are in memory, as in every trial of a study but the first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import tensorly
import torch
from tensorly.decomposition import partial_tucker
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from rank_search.layers import Layer, load_plugin
from rank_search.priors import SpectraCache

CHANNELS = [64, 256, 512]
DECAYS = [0.5, 1.0]


def kernel(channels: int, decay: float) -> Tensor:
    """A channels × channels × 3 × 3 kernel whose singular values in both channel modes fall like i^-decay."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, channels + 1) ** -decay
    core = torch.randn(channels, channels, 3, 3, generator=generator) * scale[:, None, None, None]
    bases = (torch.linalg.qr(torch.randn(channels, channels, generator=generator))[0] for _ in range(2))
    signal = torch.einsum("oa,abyx,ib->oiyx", next(bases), core * scale[:, None, None], next(bases))
    noise = torch.randn(signal.shape, generator=generator)
    noisy: Tensor = signal + 0.1 * noise * signal.norm() / noise.norm()
    return noisy


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call, the mean over about half a second."""
    start, repeats = time.process_time(), 0
    while repeats == 0 or time.process_time() - start < 0.5:
        work()
        repeats += 1
    return (time.process_time() - start) / repeats


def seconds_once(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def hooi(weight: Tensor, rank: int) -> Tensor:
    (core, factors), _ = partial_tucker(weight, rank=[rank, rank], modes=[0, 1])
    dense: Tensor = tensorly.tenalg.multi_mode_dot(core, factors, modes=[0, 1])
    return dense


def relative_error(weight: Tensor, approximation: Tensor) -> float:
    return float((weight - approximation).norm() / weight.norm())


def compare(channels: int, decay: float, rank: int) -> None:
    weight = kernel(channels, decay)
    layer = Layer("kernel", "conv2d", tuple(weight.shape))
    bases = SpectraCache().bases(layer.name, weight)
    module = load_plugin("tucker2")(layer, rank_out=rank, rank_in=rank)
    cold = seconds_once(partial(module.fit, weight, bases))
    warm = seconds(partial(module.fit, weight, bases))
    theirs = seconds(partial(partial_tucker, weight, rank=[rank, rank], modes=[0, 1]))
    error = relative_error(weight, module.dense().detach())
    expected = relative_error(weight, hooi(weight, rank))
    print(
        f"{channels:>4}² × 3² {decay:>4} {rank:>5} {cold * 1e3:>10.2f} {warm * 1e3:>10.4f} {theirs * 1e3:>12.2f} "
        f"{theirs / warm:>8.0f} {error:>8.4f} {expected:>9.4f} {100 * (error / expected - 1):>8.2f}",
        flush=True,
    )


def main() -> None:
    tensorly.set_backend("pytorch")
    torch.set_num_threads(1)
    print("CPU milliseconds, one thread; relative errors, and how far ours is above theirs in percent")
    print("   kernel    p  rank    cold ms    warm ms  tensorly ms    ratio    error  tensorly  above %")
    with threadpool_limits(1):
        for channels in CHANNELS:
            for decay in DECAYS:
                for rank in (channels // 4, channels // 2):
                    compare(channels, decay, rank)


if __name__ == "__main__":
    main()

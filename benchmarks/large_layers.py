"""What a layer of a large language model takes: seconds and peak memory of everything that is made of its weight.

Run: python -m benchmarks.large_layers [--shapes 4096x11008 11008x4096] [--scale 1] [--parts outputs svd …]

Weights and moments as they are found: singular values that fall slowly, a few inputs much larger than all others. Each
part runs in a process of its own, which prints CPU seconds and by how much its peak memory (VmHWM) passes what it held
before: the weight in float32, and the moment where the part takes one. `--scale 2` halves both sizes of each shape, and
the size from which on layers are taken as large ones.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from rank_search.layers import (
    Basis,
    DirectBases,
    Layer,
    bases,
    decompose,
    fit_to,
    load_plugin,
    metric,
    output_basis,
    output_error,
)
from rank_search.priors.spectrum import Spectrum
from rank_search.tasks.calibration import _Moment

MEGABYTE: Final = 1e6


def weight_of(rows: int, columns: int) -> Tensor:
    """Random directions, scaled so that singular values fall like those of trained layers."""
    torch.manual_seed(0)
    weight: Tensor = torch.randn(rows, columns) / columns**0.5
    weight *= torch.logspace(0, -1.5, columns)[torch.randperm(columns)]
    weight *= torch.logspace(0, -0.5, rows)[torch.randperm(rows)][:, None]
    return weight


def moment_of(columns: int) -> Tensor:
    """Of inputs of which some are thirty times as large as the others, from as many columns as there are inputs."""
    scale = torch.logspace(1.5, 0, columns)[torch.randperm(columns)].pow(2)
    inputs = torch.randn(columns, columns).mul_(scale)
    found: Tensor = inputs.T @ inputs
    return found.div_(columns)


def moments(weight: Tensor, moment: Tensor) -> Tensor | None:
    """Two batches of 8,192 positions."""
    kept = _Moment(Layer("layer", "linear", tuple(weight.shape)))
    inputs = torch.randn(8192, weight.shape[1])
    for _ in range(2):
        kept.take(inputs)
    return kept.mean()


def spectrum(weight: Tensor, moment: Tensor) -> Spectrum:
    return Spectrum.of(weight, "layer")


def basis(weight: Tensor, moment: Tensor) -> Basis:
    return decompose(weight)


def outputs(weight: Tensor, moment: Tensor) -> Basis:
    return output_basis(weight, moment)


def fit(weight: Tensor, moment: Tensor) -> float:
    """One form of a fifth of the parameters, and its error; the basis is there."""
    layer = Layer("layer", "linear", tuple(weight.shape), bias=False)
    rank = weight.numel() // (5 * sum(weight.shape))
    known = DirectBases(weight, moment)
    short = min(weight.shape)
    known._outputs = Basis(torch.empty(weight.shape[0], short), torch.empty(short), torch.empty(short, weight.shape[1]))
    form = load_plugin("svd")(layer, rank=rank)
    with torch.no_grad():
        fit_to(form, weight, known)
        return output_error(weight, form.dense(), moment)


PARTS: Final[dict[str, Callable[[Tensor, Tensor], object]]] = {
    each.__name__: each for each in (moments, spectrum, basis, outputs, fit)
}


def peak() -> float:
    """Bytes that this process has held at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(float(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def held() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(float(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def child(part: str, rows: int, columns: int, scale: int) -> None:
    large = metric.WIDE // scale
    for module in (bases, metric):
        vars(module)["WIDE"] = large
    weight = weight_of(rows, columns)
    moment = moment_of(columns) if part in ("outputs", "fit") else torch.zeros(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, begun = held(), time.process_time()
    PARTS[part](weight, moment)
    print(f"{time.process_time() - begun:.1f} {(peak() - before) / MEGABYTE:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["4096x11008", "11008x4096"])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.child[0], *map(int, chosen.child[1:]))
        return
    print(f"{'shape':>14} {'part':>9} {'CPU, s':>8} {'peak, MB':>9} {'of the weight':>14}")
    for shape in chosen.shapes:
        rows, columns = (int(each) // chosen.scale for each in shape.split("x"))
        for part in chosen.parts:
            command = [sys.executable, "-m", "benchmarks.large_layers", "--child", part]
            command += [str(rows), str(columns), str(chosen.scale)]
            answered = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
            ratio = float(answered[1]) * MEGABYTE / (4 * rows * columns)
            print(f"{f'{rows}x{columns}':>14} {part:>9} {answered[0]:>8} {answered[1]:>9} {ratio:>13.1f}×", flush=True)


if __name__ == "__main__":
    main()

"""A radiance field of 32 views: bytes, and decibels of views that it has not seen and of those it has.

Run: python -m benchmarks.scene [--strengths 0.001 0.003 …] [--epochs 120]

The field of studies/scene.toml is trained once and kept (three minutes of one core; a trial takes two). Then a trial
for each strength of the entropy penalty, all layers dense, and with an SVD of each rank in the four layers of
`LOW_RANK`. Beside them: the network at 32 bits, and at so many bits a number + deflate, as it is and trained for as
many steps as it and a trial have together; and the 32 views that it was trained on, as JPEG, WebP and AVIF at each
quality, a file for each view and all of them in one picture, 8 × 4 views.

Bytes are of payloads in packed files, which are read again for the decibels; the size of the file, which has the graph
beside its payload, is in brackets. Those of codecs are of whole files. Codecs give back the views that they are given,
and no others: they are compared with the network on those views.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch
from torch import Tensor, nn

import rank_search as rs
from benchmarks.penalized import deflated, one_trial, task_of

R = rs.representations

STEPS: Final = 3000
"""Of the field's training, as in the study."""

BITS: Final = (8, 7, 6)
"""Of a number, before deflate."""

LOW_RANK: Final = ("trunk.2", "trunk.4", "trunk.6", "colours.0")
"""All but the first of the trunk, and the two small ones at the outputs."""

Row = tuple[str, float, float, float]
"""The way, its bytes, and the decibels of test views and of training views."""


def main(arguments: argparse.Namespace) -> None:
    """Print a row for each way and each strength, as they are measured."""
    task = task_of("scene", steps=STEPS)
    longer = task_of("scene", steps=STEPS + task.batches * arguments.epochs)
    for way, size, test, training in _rows(task, longer, arguments):
        print(f"{way:<42} {size:>8,.0f} bytes   test {test:>6.2f} dB   training {training:>6.2f} dB", flush=True)


def _rows(task: R.Scene, longer: R.Scene, arguments: argparse.Namespace) -> Iterator[Row]:
    yield "32 bits", 4.0 * sum(each.numel() for each in task.network.parameters()), *_measured(task, task.network)
    yield from _deflated(task, "")
    yield from _deflated(longer, ", trained for longer")
    yield from _codecs(task.training_views.images)
    for strength in arguments.strengths:
        yield _trial(task, arguments.epochs, strength, None)
    for rank, strength in product(arguments.ranks, arguments.strengths_low_rank):
        yield _trial(task, arguments.epochs, strength, rank)


def _measured(task: R.Scene, network: nn.Module) -> tuple[float, float]:
    """Decibels of test views and of training views."""
    assert task.test_views is not None
    with torch.no_grad():
        test, training = (
            task.evaluate(network, task.measured_on(views))["psnr"] for views in (task.test_views, task.training_views)
        )
    return test, training


def _deflated(task: R.Scene, which: str) -> Iterator[Row]:
    for bits in BITS:
        network, size = deflated(task.network, bits)
        yield f"{bits} bits + deflate{which}", size, *_measured(task, network)


def _codecs(images: Tensor) -> Iterator[Row]:
    """Without decibels of test views, which no codec knows."""
    each = [R.Signal(image, is_image=True) for image in images]
    sheet = R.Signal(torch.cat([torch.cat(list(row), dim=1) for row in torch.split(images, 8)]), is_image=True)
    for way, signals in (("each", each), ("in one", [sheet])):
        for name, curve in R.codec_curves(signals).items():
            for point in curve:
                yield f"{name}, {way}, quality {point['quality']:g}", point["bits"] / 8, float("nan"), point["psnr"]


def _trial(task: R.Scene, epochs: int, strength: float, rank: int | None) -> Row:
    """A study of one trial; the network that is measured is read from its packed file."""
    chosen = {} if rank is None else {name: {"factorization": "svd", "rank": rank} for name in LOW_RANK}
    with one_trial(task, epochs, strength, chosen, size="bits") as (store, trial), TemporaryDirectory() as folder:
        file = Path(folder) / "s.rsz"
        packed = rs.pack_trial(store, "penalized", trial.number, file, task)
        network, size = rs.load(file), file.stat().st_size
    form = "dense" if rank is None else f"rank {rank}"
    return f"{form}, {strength:g} (a file of {size:,})", len(packed.payload), *_measured(task, network)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--strengths", type=float, nargs="*", default=[0.001, 0.003, 0.01, 0.03])
    parser.add_argument("--ranks", type=int, nargs="*", default=[16])
    parser.add_argument("--strengths-low-rank", type=float, nargs="*", default=[0.01, 0.03])
    main(parser.parse_args())

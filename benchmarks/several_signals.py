"""Frames of a pan, or two photographs, as networks together and apart: bytes and decibels over all of them.

Run: python -m benchmarks.several_signals [--name china.jpg|both] [--steps 2000] [--epochs 300] [--apart .02 .06]

Together: networks with one weight for all of them and biases of their own are trained; then `shared-plus-own` at each
rank, a trial for each strength of entropy. Apart: each network is trained, penalized and coded by itself; bytes are
summed. Both have the same steps and epochs.
Bytes are of coded payloads, which are decoded for the decibels; a packed file has about 100 more, and apart there are
as many files as frames. Codecs write a file for each frame.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from itertools import product
from typing import Final

import torch

import rank_search as rs
from benchmarks.penalized import one_trial, task_of

STRENGTHS: Final = (0.02, 0.06, 0.2)
"""Of entropy, together."""

STRENGTHS_APART: Final = (0.015, 0.06)
"""Of each network by itself: of a loss that is its own, shared among its own weights."""

PARTS: Final = "networks.*.{layer}"

Row = tuple[str, float, float]
"""The way, its bytes and its decibels."""


def main(arguments: argparse.Namespace) -> None:
    """Print a row for each way and each strength, as they are measured."""
    options = {"name": arguments.name, "size": arguments.size, "steps": arguments.steps}
    task, alone = task_of("frames", **options), task_of("frames", **options, shared=0.0)
    for row in _rows(task, alone, arguments):
        print("{:<28} {:>8,.0f} bytes {:>6.2f} dB".format(*row), flush=True)


def _rows(task: rs.Representation, alone: rs.Representation, arguments: argparse.Namespace) -> Iterator[Row]:
    for way, each in (("together, 32 bits", task), ("apart, 32 bits", alone)):
        with torch.no_grad():
            decibels = float(each.evaluate(each.network, each.selection())["psnr"])
        yield way, 4.0 * sum(one.numel() for one in each.network.parameters()), decibels
    for name, curve in task.reference_curves().items():
        yield from ((name, point["bits"] / 8, point["psnr"]) for point in curve)
    for strength, rank in product(STRENGTHS, arguments.ranks):
        chosen = {"networks.*": {"factorization": "shared-plus-own", "rank": rank}}
        with one_trial(task, arguments.epochs, strength, chosen, PARTS) as (_, trial):
            found = trial.measurements
        yield f"together, rank {rank}, {strength:g}", found["bits"] / 8, found["psnr"]
    for strength in arguments.apart:
        yield f"apart, {strength:g}", *_apart(alone, arguments.epochs, strength)


def _apart(task: rs.Representation, epochs: int, strength: float) -> tuple[float, float]:
    """Bytes of all networks by themselves, and decibels over all frames; images have the range of one."""
    total, errors = 0.0, []
    assert isinstance(task.network, rs.representations.Several)
    for network, signal in zip(task.network.networks, task.signals.each, strict=True):
        with one_trial(rs.Representation(network, signal, batch=1024), epochs, strength) as (_, trial):
            total += trial.measurements["bits"] / 8
            errors.append(10 ** (-trial.measurements["psnr"] / 10))
    return total, -10 * math.log10(sum(errors) / len(errors))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="china.jpg")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1])
    parser.add_argument("--apart", type=float, nargs="+", default=STRENGTHS_APART)
    main(parser.parse_args())

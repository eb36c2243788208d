"""A photograph as a SIREN: bytes and decibels of a grid of steps, of the entropy penalty, and of what is at hand.

Run: python -m benchmarks.representation [--name china.jpg] [--width 256] [--steps 3000]

The network, 48 × 4, is trained once and kept (four minutes of one core; all else takes ten). Beside image codecs and so
many bits a number + deflate: the network as it is on the best grid of steps, at several strengths of entropy, and
trained under the entropy penalty, a trial for each strength, without low-rank forms. Bytes are of coded payloads, which
are decoded for the decibels; a packed file has about 100 more. Those of codecs are of whole files.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Final

import torch
from torch import nn

import rank_search as rs
from benchmarks.penalized import deflated, one_trial, task_of
from rank_search.coding import decode, encode
from rank_search.quantization import weight_count
from rank_search.training.step_grid import StepGrid

BITS: Final = (8, 7, 6)
"""Of a number, before deflate."""

STRENGTHS_ALONE: Final = (0.003, 0.01, 0.03, 0.1)
"""By which steps are judged for the network as it is."""

TRAININGS: Final[Mapping[int, Sequence[float]]] = {100: (0.02, 0.06, 0.15, 0.4), 300: (0.01, 0.06)}
"""Strengths of the entropy penalty, by the epochs of training under it."""

Row = tuple[str, float, float]
"""The way, its bytes and its decibels."""


def main(arguments: argparse.Namespace) -> None:
    """Print a row for each way and each strength, as they are measured."""
    options = {"name": arguments.name, "width": arguments.width, "steps": arguments.steps}
    task = task_of("photograph", **options, crop=0, neurons=48, depth=4)
    trained = chain.from_iterable(_trained(task, *each) for each in TRAININGS.items())
    for row in chain(_as_it_is(task), _codecs(task), _deflated(task), _on_grids(task), trained):
        print("{:<28} {:>8,.0f} bytes {:>6.2f} dB".format(*row), flush=True)


def _measured(task: rs.Representation, network: nn.Module) -> float:
    """Its decibels."""
    with torch.no_grad():
        return float(task.evaluate(network, task.selection())["psnr"])


def _as_it_is(task: rs.Representation) -> Iterator[Row]:
    yield "32 bits", 4.0 * sum(each.numel() for each in task.network.parameters()), _measured(task, task.network)


def _codecs(task: rs.Representation) -> Iterator[Row]:
    for name, curve in task.reference_curves().items():
        yield from ((name, point["bits"] / 8, point["psnr"]) for point in curve)


def _deflated(task: rs.Representation) -> Iterator[Row]:
    for bits in BITS:
        network, size = deflated(task.network, bits)
        yield f"{bits} bits + deflate", size, _measured(task, network)


def _on_grids(task: rs.Representation) -> Iterator[Row]:
    """The network as it is, on the steps of least D + λ·R."""
    for strength in STRENGTHS_ALONE:
        network = copy.deepcopy(task.network)
        torch.manual_seed(0)
        found = StepGrid(task, network, list(task.training()), strength / weight_count(network)).best()
        coded = encode(found.state, found.grids)
        network.load_state_dict(decode(coded))
        yield f"grid alone, {strength:g}", len(coded), _measured(task, network)


def _trained(task: rs.Representation, epochs: int, strengths: Sequence[float]) -> Iterator[Row]:
    """A study of one trial for each strength."""
    for strength in strengths:
        with one_trial(task, epochs, strength) as (_, trial):
            yield f"{epochs} epochs, {strength:g}", trial.measurements["bits"] / 8, trial.measurements["psnr"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="china.jpg")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3000)
    main(parser.parse_args())

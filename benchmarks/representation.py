"""A photograph as a SIREN: bytes and decibels of the entropy penalty, of 8 bits + deflate, and of image codecs.

Run: python -m benchmarks.representation [--name china.jpg] [--width 256] [--steps 3000] [--epochs 100]
     [--strengths 0.02 0.06 0.15 0.4] [--rounding grid]

The network, 48 × 4, is trained once. Each strength of entropy is a trial of its own, without low-rank forms. Bytes are
of coded payloads, which are decoded for the decibels; a packed file has about 100 more. Those of codecs are of whole
files.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import rank_search as rs
from tests.study.study_modules import study_module


def main(arguments: argparse.Namespace) -> None:
    """Print a row for each way and each strength."""
    with study_module("photograph") as study:
        task = study.task(arguments.name, 0, arguments.width, 48, 4, arguments.steps)
    rows = [("network", 4.0 * sum(each.numel() for each in task.network.parameters()), measured(task, task.network))]
    for name, curve in task.reference_curves().items():
        rows += [(name, point["bits"] / 8, point["psnr"]) for point in curve]
    for row in (*rows, *deflated(task), *searched(task, arguments)):
        print("{:<24} {:>8,.0f} bytes {:>6.2f} dB".format(*row), flush=True)


def measured(task: rs.Representation, network: nn.Module) -> float:
    """Its decibels."""
    with torch.no_grad():
        return float(task.evaluate(network, task.selection())["psnr"])


def deflated(task: rs.Representation) -> Iterator[tuple[str, float, float]]:
    """Each tensor in so many bits, as multiples of its largest number's share, all of them deflated."""
    for bits in (8, 7, 6):
        network, data = copy.deepcopy(task.network), b""
        with torch.no_grad():
            for parameter in network.parameters():
                step = parameter.abs().max() / (2 ** (bits - 1) - 1)
                whole = (parameter / step).round()
                parameter.copy_(whole * step)
                data += np.float32(step).tobytes() + whole.to(torch.int8).numpy().tobytes()
        yield f"{bits} bits + deflate", len(zlib.compress(data, 9)), measured(task, network)


def searched(task: rs.Representation, arguments: argparse.Namespace) -> Iterator[tuple[str, float, float]]:
    """A trial for each strength."""
    strengths: Sequence[float] = arguments.strengths
    tables: dict[str, Any] = {
        "study": {"name": "representation"},
        "task": {"factory": "(in memory)"},
        "layers": {"rules": [{"match": "*", "factorizations": []}]},
        "search": {
            "objectives": [{"name": "psnr", "direction": "maximize"}, "bits_per_sample"],
            "entropy": {"low": min(strengths) / 2, "high": max(strengths) * 2},
            "seeds": {"dense": False, "points": [{"name": f"{each:g}", "entropy": each} for each in strengths]},
        },
        "training": {"epochs": arguments.epochs, "learning_rate": 2e-3},
        "coding": {"rounding": arguments.rounding},
    }
    with tempfile.TemporaryDirectory() as folder:
        study, store = rs.Study.model_validate(tables), str(Path(folder) / "s.sqlite")
        result = rs.run_study(study, task=task, store=store, trials=len(strengths))
        with rs.Store.open(store) as opened:
            for row in opened.trials(result.study):
                strength = row.point.penalties["entropy"]
                yield f"entropy {strength:g}", row.measurements["bits"] / 8, row.measurements["psnr"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="china.jpg")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--epochs", type=float, default=100)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.02, 0.06, 0.15, 0.4])
    parser.add_argument("--rounding", default="grid")
    main(parser.parse_args())

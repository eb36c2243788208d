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
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

import torch

import rank_search as rs
from tests.study.study_modules import study_module

STRENGTHS: Final = (0.02, 0.06, 0.2)
"""Of entropy, together."""

STRENGTHS_APART: Final = (0.015, 0.06)
"""Of each network by itself: of a loss that is its own, shared among its own weights."""

PARTS: Final = "networks.*.{layer}"

Row = tuple[str, float, float]
"""The way, its bytes and its decibels."""


def main(arguments: argparse.Namespace) -> None:
    """Print a row for each way and each strength, as they are measured."""
    with study_module("frames") as study:
        task = study.task(arguments.name, size=arguments.size, steps=arguments.steps)
        alone = study.task(arguments.name, size=arguments.size, steps=arguments.steps, shared=0.0)
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
        found = _trial(task, _together(arguments.epochs, strength, rank))
        yield f"together, rank {rank}, {strength:g}", found["bits"] / 8, found["psnr"]
    for strength in arguments.apart:
        yield f"apart, {strength:g}", *_apart(alone, arguments.epochs, strength)


def _apart(task: rs.Representation, epochs: int, strength: float) -> tuple[float, float]:
    """Bytes of all networks by themselves, and decibels over all frames; images have the range of one."""
    total, errors = 0.0, []
    assert isinstance(task.network, rs.representations.Several)
    for network, signal in zip(task.network.networks, task.signals.each, strict=True):
        found = _trial(rs.Representation(network, signal, batch=1024), _tables(epochs, strength, [], {}))
        total += found["bits"] / 8
        errors.append(10 ** (-found["psnr"] / 10))
    return total, -10 * math.log10(sum(errors) / len(errors))


def _trial(task: rs.Representation, tables: Mapping[str, Any]) -> Mapping[str, float]:
    """A study of one trial."""
    with tempfile.TemporaryDirectory() as folder:
        study, store = rs.Study.model_validate(tables), str(Path(folder) / "s.sqlite")
        result = rs.run_study(study, task=task, store=store, trials=1)
        with rs.Store.open(store) as opened:
            (trial,) = opened.trials(result.study)
    return trial.measurements


def _together(epochs: int, strength: float, rank: int) -> dict[str, Any]:
    chosen = {"networks.*": {"factorization": "shared-plus-own", "rank": rank}}
    return _tables(epochs, strength, ["shared-plus-own"], {"layers": chosen})


def _tables(epochs: int, strength: float, forms: Sequence[str], point: Mapping[str, Any]) -> dict[str, Any]:
    rules = {} if forms else {"rules": [{"match": "*", "factorizations": []}]}
    return {
        "study": {"name": "several"},
        "task": {"factory": "(in memory)"},
        "layers": {"factorizations": forms, "tie": [[PARTS]]} if forms else rules,
        "search": {
            "objectives": [{"name": "psnr", "direction": "maximize"}, "bits_per_sample"],
            "entropy": {"low": strength / 2, "high": strength * 2},
            "seeds": {"dense": False, "points": [{"name": "strength", "entropy": strength, **point}]},
        },
        "training": {"epochs": epochs, "learning_rate": 2e-3},
        "coding": {"rounding": "grid"},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="china.jpg")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1])
    parser.add_argument("--apart", type=float, nargs="+", default=STRENGTHS_APART)
    main(parser.parse_args())

"""One training with a row of results against as many trainings, of SVDs, at equal epochs in all.

    python -m benchmarks.ordered --row 7 --epochs 24 --ordered 0 0.5 --rng-seeds 0 1 2
    python -m benchmarks.ordered studies/fashion.toml --options '{"data": "…/fashion_mnist.npz"}' --worst 0.2 …

Separate trials are allocations from .6 of the MACs down to a tenth of that, and share the epochs evenly. The one
training begins with every layer at its largest rank that saves MACs, and has all epochs, or a third. Printed
are hypervolume (errors up to `--worst`, MACs up to the dense model's), relative to that of the separate trials, and the
least error at or below each share of MACs, the mean over rng seeds. Errors are on the selection images.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import rank_search as rs
from rank_search.options import OptionTable
from rank_search.pareto import ReferenceBox
from rank_search.point import Choice, Outcome, Point
from rank_search.run.preparation import prepare
from rank_search.run.worker import make_context
from rank_search.study import Study, load_study
from rank_search.trials import TrialContext, run_trial

DIGITS = Path(__file__).parents[1] / "studies" / "digits.toml"
AT = (0.5, 0.3, 0.2, 0.15, 0.1)
START = 0.6

Results = Sequence[tuple[float, float]]
"""Error, and MACs as a share of the dense model's."""


def study_of_svds(path: Path, options: Mapping[str, Any]) -> Study:
    study = load_study(path)
    layers = study.layers.model_copy(update={"factorizations": ("svd",)})
    task = study.task.model_copy(update={"options": {**study.task.options, **options}})
    return study.model_copy(update={"layers": layers, "task": task})


def trained(context: TrialContext, point: Point, rng_seed: int, **training: float) -> Outcome:
    settings = context.training.model_copy(update=training)
    return run_trial(replace(context, training=settings), point, rng_seed)


def results(outcome: Outcome, dense: Mapping[str, float]) -> Results:
    every = [outcome.measurements, *(cut.outcome.measurements for cut in outcome.row)]
    return [(each["error"], each["macs"] / dense["macs"]) for each in every]


def least_error(found: Results, share: float) -> float:
    return min((error for error, macs in found if macs <= share * 1.03), default=math.nan)


def line(name: str, runs: Sequence[Results], against: Sequence[float], worst: float) -> list[float]:
    """Print a set of results; returns the hypervolume for each rng seed."""
    box = ReferenceBox((0.0, 0.0), (worst, 1.0))
    volumes = [box.hypervolume(run) for run in runs]
    errors = "  ".join(f"{share:g}: {sum(least_error(run, share) for run in runs) / len(runs):.2%}" for share in AT)
    ratios = [one / other for one, other in zip(volumes, against or volumes, strict=True)]
    spread = ", ".join(f"{each:.3f}" for each in ratios)
    mean = sum(volumes) / len(volumes)
    print(f"{name:34s} hypervolume {mean:.4f}  ratio {sum(ratios) / len(ratios):.3f} ({spread})  {errors}", flush=True)
    return volumes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, nargs="?", default=DIGITS)
    parser.add_argument("--options", type=json.loads, default={}, help="of the study's task")
    parser.add_argument("--row", type=int, default=7)
    parser.add_argument("--epochs", type=float, default=24)
    parser.add_argument("--worst", type=float, default=0.1)
    parser.add_argument("--ordered", type=float, nargs="+", default=[0.0, 0.5])
    parser.add_argument("--rng-seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    prepared = prepare(study_of_svds(given.study, given.options))
    context = make_context(prepared.problem, prepared.bases, prepared.batches)
    options, dense = prepared.options, prepared.costs.dense
    assert options is not None
    context, count = replace(context, judged=("macs",)), given.row + 1
    separate = [allocated(options, START * 0.1 ** (place / given.row)) for place in range(count)]

    def apart(epochs: float) -> list[Results]:
        return [
            [each for point in separate for each in results(trained(context, point, seed, epochs=epochs), dense)]
            for seed in given.rng_seeds
        ]

    base = line(f"{count} trials, {given.epochs / count:g} epochs each", apart(given.epochs / count), [], given.worst)
    with_row = replace(context, row=given.row)
    for epochs in (given.epochs, given.epochs / 3):
        for share in given.ordered:
            runs = [
                results(trained(with_row, whole(options), seed, epochs=epochs, ordered=share), dense)
                for seed in given.rng_seeds
            ]
            line(f"one, {epochs:g} epochs, ordered {share:g}", runs, base, given.worst)


def whole(options: OptionTable) -> Point:
    """Every layer at the largest rank that saves something: what is dense cannot be cut."""
    layers: dict[str, Choice] = {}
    for own in options.of.values():
        layers |= min(own[1:], key=lambda option: option.error).choices
    return Point(layers)


def allocated(options: OptionTable, share: float) -> Point:
    return Point(rs.allocate(options, macs=share).point.layers)


if __name__ == "__main__":
    main()

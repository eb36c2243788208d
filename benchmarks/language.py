"""A language model without any training: which fits, which errors and which rule spread the cost best.

Run: python -m benchmarks.language studies/stories.toml [--options '{"text": "…", "weights": "…"}'] [--shares 0.97 0.92]

For each share of all parameters and each way, the model with at most so many parameters, its nats a token on windows of
the test data that nothing was chosen by. All ways have the same calibration windows, drawn anew for each rng seed, and
the same grid of ranks. "uniform" leaves each layer the same share of its parameters, "equal tail" the same relative
error; "plain" fits are to the weights, "diagonal" ones to inputs of which only the sizes are known (ASVD), "whitened"
ones to the second moment of the inputs (uniform: SVD-LLM), "loss" ones to that of the gradients, too, with the labels
or with targets sampled from the model's own predictions. An allocation has the least Σ error, exactly; calibrated, the
errors are times what one measured cut of each layer says. Sequential: with the same ranks, each block of layers is
fitted to what the factorized blocks before it give (`[priors] sequential`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import torch
from torch import nn

import rank_search as rs
from rank_search.layers import weight_of
from rank_search.options import (
    CostModel,
    CutMeasure,
    build_groups,
    calibrated,
    factorize_in_order,
    fits_of,
    measured_table,
    stored_bits,
)
from rank_search.priors import SpectraCache
from rank_search.run import begin, calibration_batches
from rank_search.study import Problem
from rank_search.tasks import CalibrationPass, LayerMoments, LossPass, loss_moments, seeded

LEVELS: Final = [step / 400 for step in range(401)]
Rule = Callable[[rs.OptionTable, float], rs.Point]


def uniform(options: Sequence[rs.Option], level: float) -> rs.Option:
    cheap = [each for each in options if each.params <= level * options[0].params]
    return min(cheap, key=lambda each: each.error, default=min(options, key=lambda each: each.params))


def equal_tail(options: Sequence[rs.Option], level: float) -> rs.Option:
    return min((each for each in options if each.error <= 1 - level), key=lambda each: each.params)


def within(rule: Callable[[Sequence[rs.Option], float], rs.Option]) -> Rule:
    """The rule's most generous point with at most that share of the parameters."""

    def chosen(table: rs.OptionTable, share: float) -> rs.Point:
        points = ([rule(options, level) for options in table.of.values()] for level in reversed(LEVELS))
        best = next(each for each in points if table.total(each)["params"] <= share * table.dense["params"])
        return rs.Point({layer: choice for option in best for layer, choice in option.choices.items()})

    return chosen


def allocation(table: rs.OptionTable, share: float) -> rs.Point:
    return rs.allocate(table, params=share).point


def tables(problem: Problem, batches: int, seed: int) -> dict[str, rs.OptionTable]:
    """By kind of fit and error, all from the same calibration data."""
    layers = problem.inventory.layers
    seen = loss_moments(problem.task, problem.opened, layers, batches, seed)
    sizes = {name: each.diagonal().sqrt().diag() for name, each in seen.inputs.items()}
    kinds = {
        "plain": LayerMoments(),
        "diagonal": LayerMoments(sizes),
        "whitened": LayerMoments(seen.inputs),
        "loss": seen,
        "sampled": loss_moments(problem.task, problem.opened, layers, batches, seed, sampled=True),
    }
    found = {name: table(problem, each) for name, each in kinds.items()}
    for name in ("whitened", "loss", "sampled"):
        bases = {layer: found[name].fits.bases(layer) for layer in layers}
        measure = CutMeasure(problem.task, problem.model, bases, batches, seed)  # type: ignore[arg-type]
        found[f"{name}, calibrated"] = calibrated(found[name], measure, 1)
    return found


def table(problem: Problem, moments: LayerMoments, groups: Mapping[str, Sequence[str]] | None = None) -> rs.OptionTable:
    inventory, cache = problem.inventory, SpectraCache()
    layers, plugins = inventory.layers, problem.plugins
    bases = {
        name: cache.bases(name, weight_of(problem.model, name), moments.inputs.get(name), moments.gradients.get(name))
        for name in layers
    }
    searched = build_groups(layers, plugins, groups or problem.groups, problem.choices)
    fits = fits_of(layers, plugins, bases, problem.study.folder)
    costs = CostModel(layers, plugins, inventory.rest)
    return measured_table(searched, costs, fits, 1, stored_bits(problem.model))


WAYS: Final[Mapping[str, tuple[str, Rule]]] = {
    "uniform, plain": ("plain", within(uniform)),
    "uniform, diagonal (ASVD's scaling)": ("diagonal", within(uniform)),
    "uniform, whitened (SVD-LLM)": ("whitened", within(uniform)),
    "equal tail, plain": ("plain", within(equal_tail)),
    "equal tail, whitened": ("whitened", within(equal_tail)),
    "allocation, whitened (the default)": ("whitened", allocation),
    "allocation, whitened, calibrated": ("whitened, calibrated", allocation),
    "uniform, loss": ("loss", within(uniform)),
    "allocation, loss": ("loss", allocation),
    "allocation, loss, calibrated": ("loss, calibrated", allocation),
    "allocation, loss, targets sampled": ("sampled", allocation),
    "allocation, loss, targets sampled, calibrated": ("sampled, calibrated", allocation),
    "uniform, whitened, sequential": ("whitened", within(uniform)),
    "allocation, whitened, sequential": ("whitened", allocation),
    "allocation, whitened, calibrated, sequential": ("whitened, calibrated", allocation),
    "allocation, loss, sequential": ("loss", allocation),
    "allocation, loss, calibrated, sequential": ("loss, calibrated", allocation),
}


def fitted(model: nn.Module, table: rs.OptionTable, point: rs.Point, batches: CalibrationPass | None) -> nn.Module:
    """The model of a point; in order, if there are batches for it."""
    if batches is None:
        return rs.factorize(model, point, table)
    fits = table.fits
    return factorize_in_order(model, point, fits.layers, fits.plugins, fits.bases, batches).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--shares", nargs="*", type=float, default=[0.97, 0.92, 0.87, 0.8])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", nargs="*", default=list(WAYS), help="of those in WAYS; default: all")
    parser.add_argument("--test", type=int, default=8, help="batches of test data")
    given = parser.parse_args()
    torch.set_num_threads(1)
    problem = read(given.study, given.options)
    task, model = problem.task, problem.model
    with seeded(0):
        test = list(islice(task.test() or (), given.test))

    def nats(model: nn.Module) -> float:
        with torch.no_grad():
            return task.evaluate(model, test)["nats"]

    print(f"dense: {nats(model):.3f} nats a token", flush=True)
    rows: dict[str, list[list[float]]] = {name: [] for name in given.ways}
    count = calibration_batches(problem)
    for seed in range(given.seeds):
        made = tables(problem, count, seed)
        for name in given.ways:
            kind, rule = WAYS[name]
            points = [rule(made[kind], share) for share in given.shares]
            batches = LossPass(task, count, seed) if name.endswith("sequential") else None
            rows[name].append([nats(fitted(model, made[kind], point, batches)) for point in points])
            print(seed, name, *(f"{each:.3f}" for each in rows[name][-1]), flush=True)
    show(given.shares, rows)


def read(path: Path, options: Mapping[str, object]) -> Problem:
    """The study's problem, its task made with these options, too."""
    study = rs.load_study(path)
    task = study.task.model_copy(update={"options": {**study.task.options, **options}})
    return begin(study.model_copy(update={"task": task}))


def show(shares: Sequence[float], rows: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Median and range over the rng seeds, as a table: for each way, a list for each rng seed."""
    print("| nats a token at | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
    for name, found in rows.items():
        of_shares = [sorted(each) for each in zip(*found, strict=True)]
        cells = [f"{each[len(each) // 2]:.3f} ({each[0]:.3f}–{each[-1]:.3f})" for each in of_shares]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

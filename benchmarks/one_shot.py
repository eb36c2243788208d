"""Accuracy without any training: which rule spreads the cost, and what fits that look at data bring.

Run: python -m benchmarks.one_shot studies/cifar_resnet.toml [--options '{"data": "…"}'] [--cuts 0.3 0.5 0.7]

For each cut of the MACs and each rule, a point with at most as many MACs as the cut allows, fitted to the weights alone
and to the outputs on calibration data; batch norms are re-estimated, nothing is trained, nothing is selected. The
accuracy is that on the test data. "uniform" leaves each layer the same share of its MACs, "equal errors" the same
relative error; both take the best or the cheapest form that keeps it. The allocation has the least Σ error.
With `--fits loss sampled` fits and errors are those of the loss, with the labels or with targets sampled from the
model's own predictions; with `--measured` cuts of each layer alone say how much its errors count. Batches are drawn
anew for each rng seed of `--seeds`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Final

import torch
from torch import nn

import rank_search as rs
from rank_search.study import load_task
from rank_search.tasks import seeded

LEVELS: Final = [step / 400 for step in range(401)]
FITS: Final = ("weights", "outputs", "loss", "sampled")
NORMS: Final = 10  # batches that norms take their statistics on

Rule = Callable[[Sequence[rs.Option], float], rs.Option]
"""The option of a layer at a level from 0 (nothing kept) to 1 (dense)."""


def uniform(options: Sequence[rs.Option], level: float) -> rs.Option:
    cheap = [each for each in options if each.macs <= level * options[0].macs]
    return min(cheap, key=lambda each: each.error, default=min(options, key=lambda each: each.macs))


def equal_errors(options: Sequence[rs.Option], level: float) -> rs.Option:
    return min((each for each in options if each.error <= 1 - level), key=lambda each: each.macs)


def within(table: rs.OptionTable, rule: Rule, kept: float) -> rs.Point:
    """The rule's most generous point with at most that share of the MACs."""
    points = ([rule(options, level) for options in table.of.values()] for level in reversed(LEVELS))
    chosen = next(each for each in points if table.total(each)["macs"] <= kept * table.dense["macs"])
    return rs.Point({layer: choice for option in chosen for layer, choice in option.choices.items()})


RULES: Final[Mapping[str, Callable[[rs.OptionTable, float], rs.Point]]] = {
    "uniform": lambda table, kept: within(table, uniform, kept),
    "equal errors": lambda table, kept: within(table, equal_errors, kept),
    "allocation": lambda table, kept: rs.allocate(table, macs=kept).point,
}


def measured(task: rs.Task, small: nn.Module, dense: Mapping[str, float]) -> str:
    cost = rs.layers(small, task.example()).total
    with torch.no_grad():
        accuracy = 1 - task.evaluate(small, task.test() or ())["error"]
    macs, params = 1 - cost.macs / dense["macs"], 1 - cost.params / dense["params"]
    return f"{macs:.1%} fewer MACs, {params:.1%} fewer parameters, accuracy {accuracy:.2%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--cuts", nargs="*", type=float, default=[0.3, 0.5, 0.7])
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=RULES)
    parser.add_argument("--fits", nargs="+", default=["weights", "outputs"], choices=FITS)
    parser.add_argument("--calibration", type=int, help="batches; if not said, those of the study file")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--measured", type=int, default=0, help="cuts of each layer, measured by the loss where it is")
    given = parser.parse_args()
    torch.set_num_threads(1)
    study = rs.load_study(given.study)
    named = study.task.model_copy(update={"options": {**study.task.options, **given.options}})
    task = load_task(study.model_copy(update={"task": named}))
    model, example = task.model().eval(), task.example()
    asked = study.priors.calibration if given.calibration is None else given.calibration
    few = 2 if asked in (0, "auto") else int(asked)
    for seed in given.seeds:
        with seeded(seed):
            batches = list(islice(task.training(), max(NORMS, few)))
        for fits in given.fits:
            looked_at = None if fits == "weights" else batches[:few]
            loss = task.loss if fits in ("loss", "sampled") else None
            table = rs.options(
                model,
                looked_at,
                example=example,
                layers=study.layers,
                cache=True,
                loss=loss,
                sampled_loss=task.sampled_loss if fits == "sampled" else None,
                cuts=given.measured,
            )
            for cut, name in product(given.cuts, given.rules):
                small = rs.factorize(model, RULES[name](table, 1 - cut), table, batches[:NORMS])
                said = measured(task, small, table.dense)
                print(f"seed {seed}  cut {cut:.0%}  {name:12} fitted to {fits:8} {said}", flush=True)


if __name__ == "__main__":
    main()

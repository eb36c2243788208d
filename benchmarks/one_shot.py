"""Accuracy without any training: which rule spreads the cost, and what fits that look at data bring.

Run: python -m benchmarks.one_shot studies/cifar_resnet.toml [--options '{"data": "…"}'] [--cuts 0.3 0.5 0.7]

For each cut of the MACs and each rule, a point with at most as many MACs as the cut allows, fitted to the weights alone
and to the outputs on calibration data; batch norms are re-estimated, nothing is trained, nothing is selected. The
accuracy is that on the test data. "uniform" leaves each layer the same share of its MACs, "equal errors" the same
relative error; both take the best or the cheapest form that keeps it. The allocation has the least Σ error.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import torch

import rank_search as rs
from rank_search.study import load_task
from rank_search.tasks import seeded

LEVELS: Final = [step / 400 for step in range(401)]

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--cuts", nargs="*", type=float, default=[0.3, 0.5, 0.7])
    given = parser.parse_args()
    torch.set_num_threads(1)
    study = rs.load_study(given.study)
    named = study.task.model_copy(update={"options": {**study.task.options, **given.options}})
    task = load_task(study.model_copy(update={"task": named}))
    model, example = task.model().eval(), task.example()
    with seeded(0):
        batches = list(islice(task.training(), 10))
    asked = study.priors.calibration
    few = batches[: 2 if asked in (0, "auto") else int(asked)]
    tables = {
        name: rs.options(model, few if name == "outputs" else None, example=example, layers=study.layers, cache=True)
        for name in ("weights", "outputs")
    }
    for cut in given.cuts:
        for name, rule in RULES.items():
            for fitted, table in tables.items():
                small = rs.factorize(model, rule(table, 1 - cut), table, batches)
                cost = rs.layers(small, example).total
                with torch.no_grad():
                    accuracy = 1 - task.evaluate(small, task.test() or ())["error"]
                macs, params = 1 - cost.macs / table.dense["macs"], 1 - cost.params / table.dense["params"]
                print(
                    f"cut {cut:.0%}  {name:12} fitted to {fitted:8} {macs:.1%} fewer MACs, "
                    f"{params:.1%} fewer parameters, accuracy {accuracy:.2%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()

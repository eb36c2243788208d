"""Continuous ranks beside exact allocations at the same costs, untrained, and mixtures of ranks as published.

Run: python -m benchmarks.continuous studies/cifar_resnet.toml [--options '{"data": "…"}'] [--shares 0.6 0.45 0.3 0.2]

For each share of the MACs the allocation of least Σ error, and the continuous ranks, which look at the outputs on 8
batches of the network and at no label; batch norms take their statistics again on the same batches. For each form of
`--mixtures` the published search gives one point, and the allocation of as many MACs stands beside it. Errors are those
on the selection data and, looked at once, on the test data. Batches are drawn anew for each rng seed; `--plain` takes
training images as they are, in place of shifted and flipped ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import rank_search as rs
from rank_search.study import load_task
from rank_search.tasks import seeded

BATCHES = 8


@dataclasses.dataclass(frozen=True)
class Setting:
    """A network, the layers of it that are searched, and the batches of one rng seed."""

    study: rs.Study
    task: Any
    seed: int
    batches: list[Any]

    def table(self, forms: list[str]) -> rs.OptionTable:
        layers = {"exclude": list(self.study.layers.exclude), "factorizations": forms}
        model, example = self.task.model(), self.task.example()
        return rs.options(model, self.batches, example=example, layers=layers, cache=True)

    def show(self, what: str, table: rs.OptionTable, find: Callable[[], rs.Allocation]) -> rs.Allocation:
        """Print what is found, its errors, and how long that took."""
        began = time.perf_counter()
        found = find()
        seconds = time.perf_counter() - began
        small, share = rs.factorize(self.task.model(), found, table, self.batches), found.macs / found.dense["macs"]
        with torch.no_grad():
            selection = self.task.evaluate(small, self.task.selection())["error"]
            test = self.task.evaluate(small, self.task.test())["error"]
        said = f"seed {self.seed}  {share:6.1%} of the MACs  {what:26}"
        print(f"{said} selection {selection:.2%}  test {test:.2%}  {seconds:.0f} s", flush=True)
        return found


def batches_of(task: Any, seed: int, plain: bool) -> list[Any]:
    if plain:
        images = dataclasses.replace(task.training_batches, augment=False)
        return list(islice(images, seed * BATCHES, (seed + 1) * BATCHES))
    with seeded(seed):
        return list(islice(task.training(), BATCHES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--shares", nargs="*", type=float, default=[0.6, 0.45, 0.3, 0.2])
    parser.add_argument("--forms", nargs="+", default=["svd-spatial"])
    parser.add_argument("--mixtures", nargs="*", default=[], help="forms for the published search")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--plain", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    study = rs.load_study(given.study)
    named = study.task.model_copy(update={"options": {**study.task.options, **given.options}})
    task = load_task(study.model_copy(update={"task": named}))
    for seed in given.seeds:
        setting = Setting(study, task, seed, batches_of(task, seed, given.plain))
        for share in given.shares:
            costs(setting, given.forms, share, given.steps)
        for form in given.mixtures:
            mixtures(setting, form)


def costs(setting: Setting, forms: list[str], share: float, steps: int) -> None:
    table, model = setting.table(forms), setting.task.model()
    setting.show("allocation", table, lambda: rs.allocate(table, macs=share))
    setting.show(
        "continuous", table, lambda: rs.continuous_ranks(model, table, setting.batches, macs=share, steps=steps)
    )


def mixtures(setting: Setting, form: str) -> None:
    table = setting.table([form])
    found = setting.show(f"mixture of {form}", table, lambda: rs.mixture_ranks(table, form, step=10))
    setting.show(f"allocation of {form}", table, lambda: rs.allocate(table, macs=found.macs / found.dense["macs"]))


if __name__ == "__main__":
    main()

"""What each further family of factorizations brings to others: nothing is trained.

Run: python -m benchmarks.families studies/cifar_resnet.toml [--options '{"data": "…"}'] [--families filter-basis …]
[--tie 'layer1.*' …]

For each share of the parameters, and of the MACs, the exact allocation among the forms (`--forms`; if not said, those
of the study file; `cp` takes minutes to fit), and among these and a family, fitted to the outputs on two batches of
calibration data; batch norms are re-estimated on eight. Batches are drawn anew for each rng seed. With `--tie` the
layers that each of its globs matches are tied, whatever they become: pools, for families that share factors. A row has
the error on the test data at each share, in %, and how many layers the family was chosen for; last come the means over
the seeds. Parameters and MACs are counted on the model that is evaluated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

import rank_search as rs
from rank_search.study import load_task
from rank_search.tasks import seeded

CALIBRATION: Final = 2
NORMS: Final = 8
COSTS: Final = ("params", "macs")
FAMILIES: Final = (
    *("filter-basis", "block-svd-4", "block-svd-8", "block-svd-16", "tensor-train", "kronecker-sum"),
    *("buckets", "symmetric-left-right", "symmetric-quarter-turns"),
)


@dataclass(frozen=True)
class Found:
    """An allocation that was evaluated: the test error, and in how many layers it has the family."""

    error: float
    layers: int


class Measure:
    """Test errors of allocations of one study's model."""

    def __init__(self, study: rs.Study, cache: Path, ties: Sequence[str] = ()) -> None:
        self._study, self._cache, self._ties = study, cache, tuple((glob,) for glob in ties)
        self._task = load_task(study)
        self.model = self._task.model().eval()
        self._example = self._task.example()

    def error(self, model: nn.Module) -> float:
        with torch.no_grad():
            return 100 * self._task.evaluate(model, self._task.test() or ())["error"]

    def row(self, forms: Sequence[str], family: str, shares: Sequence[float], seed: int) -> list[Found]:
        """At each share of the parameters, then of the MACs."""
        with seeded(seed):
            batches = list(islice(self._task.training(), NORMS))
        changes = {"factorizations": tuple(forms)} | ({"tie": self._ties} if self._ties else {})
        layers = self._study.layers.model_copy(update=changes)
        table = rs.options(self.model, batches[:CALIBRATION], example=self._example, layers=layers, cache=self._cache)
        allocations = [rs.allocate(table, params=share) for share in shares]
        allocations += [rs.allocate(table, macs=share) for share in shares]
        return [self._found(each, table, batches, family) for each in allocations]

    def _found(self, allocation: rs.Allocation, table: rs.OptionTable, batches: list[Any], family: str) -> Found:
        small = rs.factorize(self.model, allocation, table, batches)
        total = rs.layers(small, self._example).total
        if (total.params, total.macs) != (allocation.params, allocation.macs):
            raise SystemExit(
                f"The model has {total.params:,} parameters and {total.macs:,} MACs, not the allocation's."
            )
        chosen = [choice.factorization for choice in allocation.layers.values()]
        return Found(self.error(small), chosen.count(family))


def line(title: str, errors: Sequence[float], layers: Sequence[float]) -> str:
    """A row of the table."""
    return f"{title:32}" + "".join(f"{error:7.2f} ({count:4.1f})" for error, count in zip(errors, layers, strict=True))


def means(title: str, rows: Sequence[Sequence[Found]]) -> str:
    """The row of the means over the seeds."""
    columns = list(zip(*rows, strict=True))
    errors = [statistics.mean(each.error for each in column) for column in columns]
    return line(title, errors, [statistics.mean(each.layers for each in column) for column in columns])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--options", type=json.loads, default={}, help="of the task, beside those of the file")
    parser.add_argument("--forms", nargs="+")
    parser.add_argument("--families", nargs="+", default=FAMILIES)
    parser.add_argument("--tie", nargs="+", default=[], metavar="GLOB")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.6, 0.45, 0.3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, help="a folder that keeps the errors of fits for the next run")
    given = parser.parse_args()
    torch.set_num_threads(1)
    study = rs.load_study(given.study)
    named = study.task.model_copy(update={"options": {**study.task.options, **given.options}})
    with tempfile.TemporaryDirectory() as passing:
        measure = Measure(study.model_copy(update={"task": named}), given.cache or Path(passing), given.tie)
        print(f"dense: {measure.error(measure.model):.2f} %; then the error (layers with the family) at")
        print(f"{'':32}" + "".join(f"{share:6.0%} {cost:7}" for cost in COSTS for share in given.shares))
        rows: dict[str, list[list[Found]]] = {}
        for seed in given.seeds:
            for family in ("", *given.families):
                forms = [*(given.forms or study.layers.factorizations), *([family] if family else [])]
                title = f"with {family}" if family else "the forms"
                row = measure.row(forms, family, given.shares, seed)
                rows.setdefault(title, []).append(row)
                print(line(f"{title}, seed {seed}", [e.error for e in row], [e.layers for e in row]), flush=True)
    for title, found in rows.items():
        print(means(f"{title}, mean", found))


if __name__ == "__main__":
    main()

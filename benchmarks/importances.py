"""What learned importances are worth to a sweep of allocations, by how they are learned; and the order of seeds.

Run: python -m benchmarks.importances studies/cifar_resnet.toml [--options '{"data": "…"}'] [--learned 3/20/128/0 …]
         [--batches 4] [--memory runs/evaluations.json]

A way to learn is costs/steps/inputs of each batch/rng seed of the batches; 0 costs are none. A trial is a fit without
training, as in `benchmarks.front_per_trial`, whose memory of evaluations it shares. Printed are, for each way, the CPU
seconds of learning, the hypervolume of sweeps of 10 and 20 points, and that of dense and the first allocations of a
study's ten, in the order in which they are asked and in falling order of cost.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch

import rank_search as rs
from benchmarks.front_per_trial import Bench, Losses, made
from rank_search.layers import with_tensors
from rank_search.tasks import seeded

SWEEPS: Final = (10, 20)
FIRST: Final = range(2, 7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--learned", nargs="*", default=["0/0/0/0", "3/40/128/0", "3/20/128/0", "3/10/128/0"])
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--reference", type=float, default=0.9)
    parser.add_argument("--memory", type=Path, default=Path("runs/evaluations.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    bench = made(argparse.Namespace(**vars(given), importances=0))
    for way in given.learned:
        costs, steps, inputs, rng_seed = map(int, way.split("/"))
        started = time.process_time()
        learned = with_learned(bench, costs, steps, inputs, rng_seed)
        seconds = time.process_time() - started
        swept = [f"{count}: {learned.worth(learned.swept('allocation', count)):.4f}" for count in SWEEPS]
        print(f"{way:14} {seconds:4.0f} s   {'   '.join(swept)}")
        asked = [learned.loss(seed.point) for seed in learned.seeds(learned.study.search)]
        show("as they are asked", learned, asked)
        show("falling cost", learned, sorted(asked, key=lambda loss: -loss[1]))
        bench.evaluate.save()


def with_learned(bench: Bench, costs: int, steps: int, inputs: int, rng_seed: int) -> Bench:
    """The bench with importances of that many inputs of each batch."""
    problem, table = bench.prepared.problem, bench.prepared.options
    assert table is not None
    with seeded(rng_seed):
        batches: list[Any] = [problem.task.inputs(batch) for batch in islice(problem.task.training(), 8)]
    some = [with_tensors(each, lambda tensor: tensor[:inputs]) for each in batches]
    names = [each.name for each in bench.study.search.objectives]
    found = rs.learn_importances(problem.model, table, some, objectives=names, costs=costs, steps=steps)
    return replace(bench, prepared=replace(bench.prepared, options=found))


def show(label: str, bench: Bench, losses: Sequence[tuple[float, float]]) -> None:
    found: list[Losses] = [list(losses[:count]) for count in (*FIRST, len(losses))]
    worth = "   ".join(f"{len(each) - 1}: {bench.worth(each):.3f}" for each in found)
    print(f"    dense and allocations, {label:18} {worth}", flush=True)


if __name__ == "__main__":
    main()

"""What a front is worth after so many trials, by sampler and seed points, beside static sweeps of as many points.

Run: python -m benchmarks.front_per_trial studies/cifar_resnet.toml [--options '{"data": "…"}'] [--methods auto tpe …]
         [--rng-seeds 0 1 2] [--trials 200] [--batches 2] [--memory runs/evaluations.json] [--out results.json]

A trial is a fit, batch norms re-estimated, and the error on some batches of the selection data: no training. A point is
evaluated once, whichever method asks for it. Printed is the hypervolume of error and MACs, as a share of the box
between 0 and (the study's reference error, the dense model's MACs): the median over the rng seeds, and the extremes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch

from rank_search.layers import factorize
from rank_search.options import AxisRange, normalized
from rank_search.pareto import ReferenceBox
from rank_search.point import Choice, Objective, Outcome, Point, State
from rank_search.priors.cache import CachedBases
from rank_search.priors.rules import tail_rank
from rank_search.quantization import reestimate_batchnorm
from rank_search.run import Prepared, prepare
from rank_search.search import (
    AUTO,
    AutoSearcher,
    OptunaSearcher,
    Searcher,
    SearchSettings,
    Seed,
    Strength,
    Weakenings,
    seed_points,
)
from rank_search.search.settings import SeedSettings
from rank_search.study import Study, load_study
from rank_search.tasks import seeded

COUNTS: Final = (3, 5, 10, 20, 25, 50, 100, 200, 400, 700, 1000)
NONE: Final = SeedSettings(dense=False, allocations=0, fractions=(), weakenings=())
LADDER: Final = SeedSettings(allocations=0, weakenings=tuple(step / 9 for step in range(1, 10)))
UNIFORM: Final = SeedSettings(allocations=0, fractions=tuple(step / 10 for step in range(9, 0, -1)))
BOTH: Final = SeedSettings(allocations=5, weakenings=(0.2, 0.4, 0.6, 0.8, 1.0))

METHODS: Final[Mapping[str, tuple[str, SeedSettings]]] = {
    "random": ("random", NONE),
    "nsga2": ("nsga2", NONE),
    "tpe": ("tpe", NONE),
    "ladder + tpe": ("tpe", LADDER),
    "ladder + auto": ("auto", LADDER),
    "uniform + auto": ("auto", UNIFORM),
    "both + auto": ("auto", BOTH),
    "allocation + tpe": ("tpe", SeedSettings()),
    "allocation + nsga2": ("nsga2", SeedSettings()),
    "unseeded auto": ("auto", NONE),
    "auto": ("auto", SeedSettings()),
}


@dataclass
class Evaluator:
    """Errors of points, each measured once and kept in a file."""

    prepared: Prepared
    batches: int
    memory: Path
    known: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.memory.exists():
            self.known = json.loads(self.memory.read_text())

    def __call__(self, point: Point) -> float:
        if point.key not in self.known:
            self.known[point.key] = self._measured(point)
            if len(self.known) % 20 == 0:
                self.save()
        return self.known[point.key]

    def bases(self, layer: str) -> CachedBases:
        return self.prepared.bases[layer]

    def save(self) -> None:
        self.memory.parent.mkdir(parents=True, exist_ok=True)
        self.memory.write_text(json.dumps(self.known))

    def _measured(self, point: Point) -> float:
        problem = self.prepared.problem
        model = factorize(problem.model, point, problem.inventory.layers, problem.plugins, self.bases)
        with seeded(0), torch.no_grad():
            reestimate_batchnorm(problem.task, model, batches=problem.study.training.norm_batches)
            found = problem.task.evaluate(model.eval(), islice(iter(problem.task.selection()), self.batches))
        return float(found["error"])


Losses = list[tuple[float, float]]


@dataclass(frozen=True)
class Bench:
    prepared: Prepared
    study: Study
    evaluate: Evaluator

    def worth(self, losses: Sequence[tuple[float, float]]) -> float:
        reference = (self.study.search.reference["error"], self.prepared.costs.dense["macs"])
        return ReferenceBox((0.0, 0.0), reference).hypervolume(losses)

    def loss(self, point: Point) -> tuple[float, float]:
        return self.evaluate(point), float(self.prepared.costs.cost(point)["macs"])

    def seeds(self, settings: SearchSettings) -> list[Seed]:
        return seed_points(self.prepared.space, self.prepared.costs, settings, self.prepared.options)

    def searched(self, method: str, rng_seed: int, trials: int) -> Losses:
        """The losses of so many trials, in their order."""
        sampler, seeds = METHODS[method]
        settings = self.study.search.model_copy(update={"sampler": sampler, "seeds": seeds})
        space, costs, options = self.prepared.space, self.prepared.costs, self.prepared.options
        dense = {**costs.dense, "error": self.evaluate(Point({name: Choice() for name in self.layers}))}
        known = settings, self.seeds(settings), dense, rng_seed
        searcher: Searcher = OptunaSearcher(Weakenings(space, costs), *known)
        if sampler == AUTO and options is not None:
            searcher = AutoSearcher(space, options, *known)
        losses: Losses = []
        for number in range(trials):
            asked_for = searcher.ask(number)
            if asked_for is None:
                break
            losses.append(self.loss(asked_for.point))
            measured = {"error": losses[-1][0], **costs.cost(asked_for.point)}
            searcher.tell(asked_for, Outcome(State.COMPLETE, measured))
        return losses

    def swept(self, rule: str, count: int) -> Losses:
        """A sweep of so many points without any search."""
        if rule == "allocation":
            seeds = SeedSettings(allocations=count - 1)
            found = self.seeds(self.study.search.model_copy(update={"seeds": seeds}))
            return [self.loss(seed.point) for seed in found]
        return [self.loss(self._uniform(RULES[rule](self, (step + 1) / count))) for step in range(count)]

    @property
    def layers(self) -> list[str]:
        return [layer for group in self.prepared.space.groups for layer in group.layers]

    def _uniform(self, value: Value) -> Point:
        layers = {}
        for group in self.prepared.space.groups:
            name = group.factorizations[0]
            for layer, by_name in group.axes.items():
                chosen = {
                    axis.name: axis.snap(value(layer, place, axis), 1) for place, axis in enumerate(by_name[name])
                }
                layers[layer] = normalized(self.prepared.costs, layer, Choice(name, chosen))
        return Point(layers)

    def tail(self, level: float) -> Value:
        """The rank at which each layer's plain relative tail is this."""
        problem = self.prepared.problem

        def value(layer: str, place: int, axis: AxisRange) -> float:
            name = next(group.factorizations[0] for group in self.prepared.space.groups if layer in group.axes)
            unfolding = problem.plugins[name].axes(problem.inventory.layers[layer])[place].unfoldings[0]
            return tail_rank(self.evaluate.bases(layer).spectrum(unfolding), level)

        return value


Value = Callable[[str, int, AxisRange], float]
"""Of an axis of a layer, by the axis's place."""

RULES: Final[Mapping[str, Callable[[Bench, float], Value]]] = {
    "uniform": lambda bench, part: lambda layer, place, axis: part * axis.high,
    "relative tail": lambda bench, part: bench.tail(part),
    "weakening": lambda bench, part: lambda layer, place, axis: axis.at(2 * part),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--sweeps", nargs="*", default=[*RULES, "allocation"])
    parser.add_argument("--rng-seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--longest-sweep", type=int, default=50)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--reference", type=float, default=0.9)
    parser.add_argument("--importances", type=int, default=None, help="in place of the study's own")
    parser.add_argument("--memory", type=Path, default=Path("runs/evaluations.json"))
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    bench = made(given)
    results: dict[str, Any] = {}
    for sweep in given.sweeps:
        results[f"sweep: {sweep}"] = {
            n: [bench.worth(bench.swept(sweep, n))] for n in COUNTS if n <= min(given.longest_sweep, given.trials)
        }
        show(f"sweep: {sweep}", results[f"sweep: {sweep}"])
    for method in given.methods:
        results[method] = {}
        for rng_seed in given.rng_seeds:
            started = time.perf_counter()
            losses = bench.searched(method, rng_seed, given.trials)
            for count in [n for n in COUNTS if n <= len(losses)]:
                results[method].setdefault(count, []).append(bench.worth(losses[:count]))
            print(f"  ({method}, rng seed {rng_seed}: {time.perf_counter() - started:.0f} s)", flush=True)
        show(method, results[method])
    bench.evaluate.save()
    if given.out:
        given.out.write_text(json.dumps(results, indent=1))


def made(given: argparse.Namespace) -> Bench:
    study = study_of(given.study, given.options, given.reference)
    if given.importances is not None:
        priors = study.priors.model_copy(update={"importances": given.importances})
        study = study.model_copy(update={"priors": priors})
    prepared = prepare(study)
    return Bench(prepared, study, Evaluator(prepared, given.batches, given.memory))


def study_of(path: Path, options: Mapping[str, Any], reference: float) -> Study:
    """The study with error and MACs for objectives, and no penalties."""
    study = load_study(path)
    changes: dict[str, Any] = {
        "objectives": (Objective("error"), Objective("macs")),
        "reference": {"error": reference},
        "orthogonality": Strength(),
        "entropy": Strength(),
    }
    task = study.task.model_copy(update={"options": {**study.task.options, **options}})
    return study.model_copy(update={"task": task, "search": study.search.model_copy(update=changes)})


def show(name: str, by_count: Mapping[int, Sequence[float]]) -> None:
    cells = [
        f"{count}: {statistics.median(found):.4f} [{min(found):.4f}, {max(found):.4f}]"
        for count, found in by_count.items()
    ]
    print(f"{name:22} {'   '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()

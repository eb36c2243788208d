"""A language model without any training: what searches find at equal numbers of evaluations.

Run: python -m benchmarks.language_search studies/stories.toml [--options '{"text": "…", "weights": "…"}']

An evaluation is the nats a token of one model on the selection data; of all models a search has evaluated, the best one
within each share of all parameters is measured on test data that nothing was chosen by. "Bolaco" is the search of Ji
et al. (2024, arXiv:2405.10616): fits to the second moment of the inputs, one kept share each for queries and keys
together, outputs, and the three matrices of the feed-forward, values left alone; and, for an evaluation, the windows
whose perplexity varies most over 20 random allocations (which are not counted). All have one search for each size.
Measured cuts of single layers count as evaluations.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

import rank_search as rs
from benchmarks.language import read, show, table
from rank_search.options import CutMeasure, build_groups, calibrated
from rank_search.point import Outcome, State
from rank_search.run import calibration_batches
from rank_search.search import AutoSearcher, KeptShares, OptunaSearcher, Searcher, SearchSettings, Space, seed_points
from rank_search.study import Problem
from rank_search.tasks import LayerMoments, loss_moments, seeded

RANDOM: Final = 20
ALL: Final = 10**6
Found = list[tuple[rs.Point, float, float]]
"""Points with their nats and parameters."""


@dataclass
class Evaluator:
    """Nats of points on the same batches."""

    problem: Problem
    options: rs.OptionTable
    space: Space
    batches: Sequence[Any]
    known: dict[str, float] = field(default_factory=dict)

    def __call__(self, point: rs.Point) -> float:
        if point.key not in self.known:
            self.known[point.key] = self.of(point, self.batches)
        return self.known[point.key]

    def of(self, point: rs.Point, batches: Iterable[Any]) -> float:
        model = rs.factorize(self.problem.model, point, self.options)
        with torch.no_grad():
            return self.problem.task.evaluate(model.eval(), batches)["nats"]


def searched(searcher: Searcher, evaluate: Evaluator, trials: int) -> Found:
    found: Found = []
    for number in range(trials):
        trial = searcher.ask(number)
        if trial is None:
            break
        costs = evaluate.options.costs.cost(trial.point)
        found.append((trial.point, evaluate(trial.point), costs["params"]))
        searcher.tell(trial, Outcome(State.COMPLETE, {"nats": found[-1][1], **costs}))
    return found


def by_auto(evaluate: Evaluator, trials: int, rng_seed: int, share: float) -> Found:
    settings = SearchSettings(objectives=("nats",), constraints=(f"params <= {share} * dense",))
    space, options = evaluate.space, evaluate.options
    seeds = seed_points(space, options.costs, settings, options)
    return searched(AutoSearcher(space, options, settings, seeds, dense(evaluate), rng_seed), evaluate, trials)


def by_bolaco(evaluate: Evaluator, trials: int, rng_seed: int, share: float, hard: int) -> Found:
    bound = f"params <= {share} * dense"
    settings = SearchSettings(objectives=("nats",), constraints=(bound,), sampler="bolaco")
    system = KeptShares(evaluate.space, evaluate.options, settings)
    if hard != ALL:
        drawn = random_points(system, rng_seed)
        evaluate = replace(evaluate, batches=hardest_windows(evaluate, drawn, hard), known={})
    searcher = OptunaSearcher(system, settings, [], dense(evaluate), rng_seed)
    return searched(searcher, evaluate, trials)


def random_points(system: KeptShares, rng_seed: int) -> list[rs.Point]:
    draw = torch.Generator().manual_seed(rng_seed)
    ranges = {name: (each.low, each.high) for name, each in system.distributions().items()}  # type: ignore[attr-defined]

    def place() -> dict[str, float]:
        return {
            name: low + float(torch.rand((), generator=draw)) * (high - low) for name, (low, high) in ranges.items()
        }

    return [system.point_at(place()) for _ in range(RANDOM)]


def hardest_windows(evaluate: Evaluator, points: Iterable[rs.Point], count: int) -> list[Any]:
    """The windows whose perplexity varies most over these points, in batches of 16."""
    windows = [tuple(part[None] for part in each) for batch in evaluate.batches for each in zip(*batch, strict=True)]
    nats = torch.tensor([[evaluate.of(point, [window]) for window in windows] for point in points])
    order = nats.exp().std(0).argsort(descending=True)[:count]
    chosen: list[tuple[Tensor, ...]] = [windows[place] for place in order.tolist()]
    parts = [chosen[start : start + 16] for start in range(0, len(chosen), 16)]
    return [tuple(torch.cat(each) for each in zip(*part, strict=True)) for part in parts]


def dense(evaluate: Evaluator) -> dict[str, float]:
    return {**evaluate.options.dense, "nats": evaluate(rs.Point({}))}


def five_by_one(layers: Iterable[str], kinds: Sequence[str]) -> dict[str, list[str]]:
    """One group for each kind, such as `wq|wk`: the layers whose last name is among its names."""
    names = list(layers)
    return {kind: [name for name in names if name.rpartition(".")[2] in kind.split("|")] for kind in kinds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--shares", nargs="*", type=float, default=[0.97, 0.92, 0.87, 0.8])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--hard", type=int, default=16, help="windows of Bolaco's validation")
    parser.add_argument("--selection", type=int, default=2, help="batches of selection data")
    parser.add_argument("--test", type=int, default=4, help="batches of test data")
    parser.add_argument("--groups", nargs="*", default=["wq|wk", "wo", "w1", "w3", "w2"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    problem = read(given.study, given.options)
    with seeded(0):
        chosen = list(islice(problem.task.selection(), given.selection))
        test = list(islice(problem.task.test() or (), given.test))
    rows: dict[str, list[list[float]]] = {}
    for seed in range(given.seeds):
        for name, search in ways(problem, chosen, seed, given).items():
            measure, found_for = search
            nats = [measure.of(best(found_for(share), share, measure), test) for share in given.shares]
            rows.setdefault(name, []).append(nats)
            print(seed, name, *(f"{each:.3f}" for each in nats), flush=True)
    show(given.shares, rows)


def best(found: Found, share: float, evaluate: Evaluator) -> rs.Point:
    most = share * evaluate.options.dense["params"]
    within = [(nats, point) for point, nats, params in found if params <= most]
    return min(within, key=lambda each: each[0], default=(0.0, rs.Point({})))[1]


Way = tuple[Evaluator, Callable[[float], Found]]


def ways(problem: Problem, chosen: Sequence[Any], seed: int, given: argparse.Namespace) -> Mapping[str, Way]:
    layers, batches, count = problem.inventory.layers, calibration_batches(problem), given.trials
    seen = loss_moments(problem.task, problem.opened, layers, batches, seed)
    whitened, groups = LayerMoments(seen.inputs), five_by_one(layers, given.groups)
    tables = {"outputs": table(problem, whitened), "loss": table(problem, seen)}
    space, tied_space = (Space(build_groups(layers, problem.plugins, each)) for each in (None, groups))
    bases = {layer: tables["loss"].fits.bases(layer) for layer in layers}
    measure = CutMeasure(problem.task, problem.model, bases, batches, seed)  # type: ignore[arg-type]
    tables["cuts"] = calibrated(tables["loss"], measure, 1)
    evaluators = {name: Evaluator(problem, each, space, chosen) for name, each in tables.items()}
    tied = {
        name: Evaluator(problem, table(problem, each, groups), tied_space, chosen)
        for name, each in (("outputs", whitened), ("loss", seen))
    }

    def bolaco(name: str, hard: int) -> Way:
        return tied[name], lambda share: by_bolaco(tied[name], count, seed, share, hard)

    def auto(name: str, trials: int) -> Way:
        return evaluators[name], lambda share: by_auto(evaluators[name], trials, seed, share)

    left = count - len(tables["cuts"].of)
    return {
        "`auto` (the default)": auto("outputs", count),
        '`auto`, `metric = "loss"`': auto("loss", count),
        f"the same with `cuts = 1`: {count - left} cuts, {left} trials": auto("cuts", left),
        "Bolaco, 5×1": bolaco("outputs", given.hard),
        'Bolaco, 5×1, `metric = "loss"`, all windows': bolaco("loss", ALL),
    }


if __name__ == "__main__":
    main()

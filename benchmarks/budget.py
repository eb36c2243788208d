"""What a front is worth after so many epochs of training in all, with and without early stopping.

    python -m benchmarks.budget studies/digits.toml --full 8 --epochs 40 80 160 240
    python -m benchmarks.budget studies/fashion.toml --options '{"data": "…/fashion_mnist.npz"}' --batches 50 …

Every search is the product's driver with one worker, on a store of its own: `auto` with and without `[search.rungs]`
(`--rungs first:factor`), and Optuna's NSGA-II and TPE without seed points and rungs. `moasha` is Syne Tune's scheduler
of that name (`pip install syne-tune`), with the first of the rungs: random points of our space, each trained until it
is stopped.

Epochs of stopped trials count, and only trials at the full budget are on a front. A training is deterministic given
its point (one rng seed for all), is kept with its checkpoints in `--memory`, and is gone on with whoever asks for it.
Printed is the hypervolume of selection error and MACs, as a share of the box between 0 and (`--reference`, the dense
model's MACs), median and extremes over rng seeds, and the same for the errors of `--worst`; after how many epochs a
search has what the first one has in the end, or 99 % of it; and how well errors at the rungs order those at the end.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from scipy.stats import spearmanr

from benchmarks.front_per_trial import METHODS, study_of
from rank_search.artifacts import ArtifactStore
from rank_search.launch import InProcess, Job, SearchDriver, SearchPlan
from rank_search.pareto import ReferenceBox
from rank_search.point import Artifact, Choice, Outcome, Point, State
from rank_search.run.preparation import Prepared, begin, prepare_subject
from rank_search.run.worker import make_context
from rank_search.search import (
    AUTO,
    AutoSearcher,
    OptunaSearcher,
    Rungs,
    Searcher,
    SearchSettings,
    Weakenings,
    seed_points,
)
from rank_search.search.rungs import RungSettings
from rank_search.store import Store, StudyRecord
from rank_search.study import Study
from rank_search.tasks import Batch, Supervised
from rank_search.trials import TrialContext, run_trial

MOST_TRIALS: Final = 10_000
MOASHA: Final = "moasha"


class Spent(Exception):  # noqa: N818  nothing went wrong
    """A search has had its epochs."""


class Result(NamedTuple):
    """A measurement, and the epochs that its search has trained by then."""

    spent: float
    budget: float
    error: float
    macs: float


Results = dict[str, dict[int, list[Result]]]
"""By search and rng seed."""


@dataclass(frozen=True)
class FewerBatches:
    """The first batches of each pass; what is shuffled anew for each pass gives others every time."""

    batches: Any
    count: int

    def __len__(self) -> int:
        return min(self.count, len(self.batches))

    def __iter__(self) -> Iterator[Batch]:
        return islice(iter(self.batches), self.count)


@dataclass
class Trainings:
    """Measurements of points by budget, kept in a file, each training gone on with from its last checkpoint."""

    context: TrialContext
    folder: Path
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: dict[str, Point] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._files = ArtifactStore(self.folder / "checkpoints")
        if self._file.exists():
            self.known = json.loads(self._file.read_text())

    @property
    def _file(self) -> Path:
        return self.folder / "trainings.json"

    def __call__(self, point: Point, budget: float) -> Outcome:
        self.asked[point.key] = point
        found = self.known.setdefault(point.key, {})
        if str(float(budget)) not in found:
            found[str(float(budget))] = self._carried_out(point, budget, found)
            self._file.write_text(json.dumps(self.known))
        kept = found[str(float(budget))]
        return Outcome(State(kept["state"]), kept["measurements"])

    def _carried_out(self, point: Point, budget: float, found: Mapping[str, Any]) -> dict[str, Any]:
        lower = [each for each in found if float(each) < budget and found[each]["checkpoint"]]
        start = max(lower, key=float, default=None)
        checkpoint = None if start is None else Artifact(**found[start]["checkpoint"])
        outcome = run_trial(self.context, point, 0, self._files, budget=budget, checkpoint=checkpoint)
        left = next((asdict(each) for each in outcome.artifacts if each.kind == "checkpoint"), None)
        for each in outcome.artifacts:
            if each.kind != "checkpoint":
                self._files.discard(each.location)
        return {"state": outcome.state.value, "measurements": dict(outcome.measurements), "checkpoint": left}


@dataclass
class Account:
    """Runs the trials of one search, and counts the epochs that they take."""

    train: Callable[[Point, float], Outcome]
    allowed: float
    spent: float = 0.0
    reached: dict[str, float] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)

    def __call__(self, job: Job) -> Outcome:
        return self.run(job.point, job.budget)

    def run(self, point: Point, budget: float) -> Outcome:
        if any(not choice.is_dense for choice in point.layers.values()):  # nothing is trained of the dense model
            self.spent += budget - self.reached.get(point.key, 0.0)
        if self.spent > self.allowed:
            raise Spent
        self.reached[point.key] = budget
        outcome = self.train(point, budget)
        found = outcome.measurements
        if outcome.state is State.COMPLETE:
            self.results.append(Result(self.spent, budget, found["error"], found["macs"]))
        return outcome


@dataclass(frozen=True)
class Bench:
    prepared: Prepared
    study: Study
    train: Trainings
    full: float

    @property
    def dense(self) -> Mapping[str, float]:
        layers = {layer: Choice() for group in self.prepared.space.groups for layer in group.layers}
        return {**self.prepared.costs.dense, "error": self.train(Point(layers), self.full).measurements["error"]}

    def searcher(self, sampler: str, settings: SearchSettings, rng_seed: int) -> Searcher:
        space, costs, options = self.prepared.space, self.prepared.costs, self.prepared.options
        known = settings, seed_points(space, costs, settings, options), self.dense, rng_seed
        if sampler == AUTO and options is not None:
            return AutoSearcher(space, options, *known)
        return OptunaSearcher(Weakenings(space, costs), *known)

    def searched(self, method: str, rungs: RungSettings | None, rng_seed: int, epochs: float) -> list[Result]:
        """What is measured in so many epochs, in its order."""
        sampler, seeds = METHODS["random" if method == MOASHA else method]
        changes = {"sampler": sampler, "seeds": seeds, "rungs": None if method == MOASHA else rungs}
        settings = self.study.search.model_copy(update=changes)
        searcher, account = self.searcher(sampler, settings, rng_seed), Account(self.train, epochs)
        try:
            if method == MOASHA:
                self._stopped_by_moasha(searcher, account, rungs, rng_seed)
            else:
                self._driven(searcher, account, rungs, rng_seed)
        except Spent:
            pass
        return account.results

    def _driven(self, searcher: Searcher, account: Account, rungs: RungSettings | None, rng_seed: int) -> None:
        dense = self.dense
        with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "store.sqlite", create=True) as store:
            record = StudyRecord(
                name="budget",
                fingerprint={},
                space={},
                objectives=self.study.search.objectives,
                reference_point={"error": self.study.search.reference["error"], "macs": dense["macs"]},
                ideal={"error": 0.0, "macs": 0.0},
                dense=dense,
                budget=self.full,
            )
            plan = SearchPlan(
                target=MOST_TRIALS,
                rungs=Rungs(rungs, self.full),
                rng_seed=rng_seed,
                constraints=(),
                judge=lambda point: None,
                max_retries=0,
                artifacts=ArtifactStore(Path(folder) / "artifacts"),
            )
            SearchDriver(store, store.join(record), searcher, InProcess(account), plan).run()

    def _stopped_by_moasha(
        self, searcher: Searcher, account: Account, rungs: RungSettings | None, rng_seed: int
    ) -> None:
        if rungs is None:
            return
        asha = importlib.import_module("syne_tune.optimizer.schedulers.multiobjective.moasha")
        trial = importlib.import_module("syne_tune.backend.trial_status").Trial
        scheduler = asha.MOASHA(
            config_space={},
            metrics=["error", "macs"],
            time_attr="epochs",
            max_t=self.full,
            grace_period=rungs.first,
            reduction_factor=rungs.factor,
            random_seed=rng_seed,
        )
        for number in range(MOST_TRIALS):
            asked, known = searcher.ask(number), trial(number, {}, datetime.now(UTC))
            if asked is None:
                return
            scheduler.on_trial_add(known)
            for budget in Rungs(rungs, self.full).budgets:
                found = account.run(asked.point, budget).measurements
                if not found or scheduler.on_trial_result(known, {"epochs": budget, **found}) == "STOP":
                    break


def main() -> None:
    given = arguments()
    torch.set_num_threads(1)
    bench = made(given)
    boxes = [ReferenceBox((0.0, 0.0), (worst, bench.dense["macs"])) for worst in (given.reference, *given.worst)]
    results: Results = {}
    searches = plans(given.methods, given.rungs)
    for name, (method, rungs) in searches.items():
        results[name] = {}
        for rng_seed in given.rng_seeds:
            begun = time.perf_counter()
            results[name][rng_seed] = bench.searched(method, rungs, rng_seed, max(given.epochs))
            print(f"  ({name}, rng seed {rng_seed}: {time.perf_counter() - begun:.0f} s)", flush=True)
            if given.out:
                given.out.write_text(json.dumps(results))
        for box in boxes:
            show(name, results, given, box)
    at = [budget for _, rungs in searches.values() for budget in Rungs(rungs, given.full).budgets]
    for line in foretold(bench.train, at, given.full):
        print(line)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--options", type=json.loads, default={}, help="of the study's task")
    parser.add_argument("--full", type=float, default=8, help="epochs of the full budget")
    parser.add_argument("--batches", type=int, default=None, help="training batches of an epoch; default: all")
    parser.add_argument("--selection-batches", type=int, default=None, help="default: all")
    parser.add_argument("--epochs", type=float, nargs="+", default=[40, 80, 160, 240])
    parser.add_argument("--methods", nargs="*", default=["auto", "nsga2", "tpe", MOASHA])
    parser.add_argument("--rungs", nargs="*", default=["1:3"], help="first:factor; for auto and, the first, for moasha")
    parser.add_argument("--rng-seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--reference", type=float, default=0.9)
    parser.add_argument("--worst", type=float, nargs="*", default=[0.1], help="further boxes, by their largest error")
    parser.add_argument("--memory", type=Path, required=True, help="a folder")
    parser.add_argument("--out", type=Path, default=None)
    return parser.parse_args()


def plans(methods: Sequence[str], rungs: Sequence[str]) -> dict[str, tuple[str, RungSettings | None]]:
    """What is searched with, by name."""
    pairs = [tuple(map(float, each.split(":"))) for each in rungs]
    settings = [RungSettings(first=first, factor=factor) for first, factor in pairs]
    found: dict[str, tuple[str, RungSettings | None]] = {}
    for method in methods:
        found[method] = method, settings[0] if method == MOASHA else None
        if method == AUTO:
            found |= {f"{method}, rungs {text}": (method, each) for text, each in zip(rungs, settings, strict=True)}
    return found


def made(given: argparse.Namespace) -> Bench:
    study = study_of(given.study, given.options, given.reference)
    study = study.model_copy(update={"training": study.training.model_copy(update={"epochs": given.full})})
    problem = begin(study)
    task = problem.task
    if not isinstance(task, Supervised):
        raise SystemExit("The task of the study is no Supervised: its batches cannot be made fewer.")
    training, selection = task.training_batches, task.selection_batches
    if given.batches is not None:
        training = FewerBatches(training, given.batches)
    if given.selection_batches is not None:
        selection = FewerBatches(selection, given.selection_batches)
    prepared = prepare_subject(problem)  # on all the batches
    context = make_context(prepared.problem, prepared.bases, prepared.batches)
    context = replace(context, task=replace(task, training_batches=training, selection_batches=selection))
    return Bench(prepared, study, Trainings(context, given.memory), given.full)


def show(name: str, results: Results, given: argparse.Namespace, box: ReferenceBox) -> None:
    """Hypervolumes, and the epochs after which there is what the first search has in the end, or that share of it."""
    first, runs = next(iter(results.values())), results[name].values()
    cells = [spread([worth(run, count, given.full, box) for run in runs]) for count in given.epochs]
    print(f"{name}, errors up to {box.reference[0]:g}")
    print("   " + "   ".join(f"{count:g}: {cell}" for count, cell in zip(given.epochs, cells, strict=True)))
    aims = [worth(run, max(given.epochs), given.full, box) for run in first.values()]
    reached = {
        share: [reaching(run, share * aim, given.full, box) for run, aim in zip(runs, aims, strict=True)]
        for share in (0.99, 0.999, 1.0)
    }
    print("   " + "   ".join(f"{share:.1%} after {spread(found, '.0f')}" for share, found in reached.items()))
    counts = {budget: [sum(each.budget == budget for each in run) for run in runs] for budget in budgets(runs)}
    print("   measured: " + ", ".join(f"{each} at {budget:g} epochs" for budget, each in counts.items()), flush=True)


def spread(found: Sequence[float], digits: str = ".4f") -> str:
    return f"{statistics.median(found):{digits}} [{min(found):{digits}}, {max(found):{digits}}]"


def budgets(runs: Iterable[Sequence[Result]]) -> list[float]:
    return sorted({each.budget for run in runs for each in run})


def worth(run: Sequence[Result], epochs: float, full: float, box: ReferenceBox) -> float:
    """Hypervolume of what was trained fully in the first epochs."""
    return box.hypervolume([(each.error, each.macs) for each in run if each.spent <= epochs and each.budget == full])


def reaching(run: Sequence[Result], aim: float, full: float, box: ReferenceBox) -> float:
    """The epochs after which a front is worth that much; infinity if it never is."""
    moments = sorted({each.spent for each in run if each.budget == full})
    return next((each for each in moments if worth(run, each, full, box) >= aim - 1e-12), math.inf)


def foretold(train: Trainings, budgets: Iterable[float], full: float) -> Iterator[str]:
    """How well the errors of fits, and those at rungs, order those at the full budget: points measured at all rungs."""
    rungs = sorted({*budgets, full} - {0.0})
    points = [point for key, point in train.asked.items() if {str(each) for each in rungs} <= train.known[key].keys()]
    if len(points) < 3:
        return
    *below, last = [
        [train(point, each).measurements.get("error", math.inf) for point in points] for each in (0, *rungs)
    ]
    for budget, errors in zip((0, *rungs), below, strict=False):
        found = spearmanr(errors, last).statistic
        yield f"errors after {budget:g} epochs and {full:g}: rank correlation {found:.2f}, {len(points)} points"


if __name__ == "__main__":
    main()

"""From the start of a search to its first trials, stage by stage; and a trial beside the evaluation that it contains.

Run: python -m benchmarks.first_trial [STUDY.toml] [--trials 6] [--workers 2] [--pairs 6]

A search is run twice in a process of its own, as `rank-search run` does it, into a new store: first with an empty cache
folder (*cold*), then with the one that it left (*warm*). Each stage shows when it began after the process was started,
its wall time, and the driver's own CPU time; stages of the workers lie beside these. Then, without training, each of
some trials by turns with what it cannot do without: the fit, the batch norms, one pass over the selection data.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

AIM_SECONDS, AIM_RATIO = 5.0, 1.2

WATCHED: Final = (
    ("preparation", "begin", "task and layers"),
    ("local", "begin", "task and layers"),
    ("preparation", "layer_moments", "moments of the inputs"),
    ("preparation", "axis_priors", "rank priors"),
    ("preparation", "option_table", "options and their errors"),
    ("preparation", "with_learned_importances", "importances"),
    ("preparation", "seed_points", "seed points"),
    ("join", "dense_measurements", "dense model on selection data"),
    ("front_on_test", "_dense_on_test", "of which the dense model"),
    ("open_study", "measure_on_test", "dense model and front on test data"),
)
"""Stages of a search: the room's module that calls a function, its name there, and what is printed."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("study", nargs="?", default="studies/cifar_resnet.toml")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        search(chosen.study, chosen.child[0], float(chosen.child[1]), chosen.trials, chosen.workers)
        return
    with tempfile.TemporaryDirectory() as folder:
        for way in ("cold", "warm"):
            show(way, measured(chosen, Path(folder), way))
        os.environ["XDG_CACHE_HOME"] = folder
        if chosen.pairs:
            show_ratios(chosen.study, chosen.pairs)


# ---- a search, watched ---------------------------------------------------------------------------------------


def measured(chosen: argparse.Namespace, folder: Path, way: str) -> list[list[Any]]:
    """Stages of a search in a new process: name, begun after so many seconds, seconds, CPU seconds."""
    counts = ["--trials", str(chosen.trials), "--workers", str(chosen.workers)]
    child = ["--child", str(folder / f"{way}.sqlite"), str(time.time())]
    command = [sys.executable, "-m", "benchmarks.first_trial", chosen.study, *counts, *child]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder)}
    answered = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: list[list[Any]] = json.loads(answered.stdout.splitlines()[-1])
    return found


def search(study: str, store: str, start: float, trials: int, workers: int) -> None:
    """Run the search, and print its stages as one line of JSON."""
    from rank_search.run import run_study
    from rank_search.store import Store
    from rank_search.study import load_study

    stages: list[list[Any]] = [["imports", 0.0, time.time() - start, time.process_time()]]

    def watch(module: Any, name: str, label: str) -> None:
        before: Callable[..., Any] = getattr(module, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            begun, cpu = time.time(), time.process_time()
            try:
                return before(*args, **kwargs)
            finally:
                stage = next((each for each in stages if each[0] == label), None)
                if stage is None:
                    stages.append(stage := [label, begun - start, 0.0, 0.0])
                stage[2] += time.time() - begun
                stage[3] += time.process_time() - cpu

        setattr(module, name, watched)

    for module, name, label in WATCHED:
        watch(import_module(f"rank_search.run.{module}"), name, label)
    study_file = load_study(Path(study)).launched({"workers": workers})
    result = run_study(study_file, store=store, trials=trials)
    with Store.open(store) as opened:
        rows = sorted(opened.trials(result.study), key=lambda row: row.number)
    for row in rows:
        begun, ended = row.started.timestamp(), row.finished.timestamp()
        stages.append([f"trial {row.number}: {row.sampler['label']}", begun - start, ended - begun, None])
    print(json.dumps(stages))


def show(way: str, stages: list[list[Any]]) -> None:
    print(f"\n{way:<36} {'begins at s':>11} {'wall s':>8} {'CPU s':>8}")
    for name, begun, wall, cpu in sorted(stages, key=lambda stage: float(stage[1])):
        print(f"{name:<36} {begun:>11.2f} {wall:>8.2f} {'–' if cpu is None else f'{cpu:.2f}':>8}")
    dense = next(begun for name, begun, *_ in stages if name.startswith("dense model on selection"))
    other = min(begun for name, begun, *_ in stages if name.startswith("trial") and not name.endswith(": dense"))
    print(f"first evaluation (the dense model) begins after {dense:.1f} s, aim {AIM_SECONDS:g} s; ", end="")
    print(f"the first factorized model's after {other:.1f} s")


# ---- a trial beside what it contains -------------------------------------------------------------------------


def show_ratios(path: str, pairs: int) -> None:
    import torch

    from rank_search.layers import factorize
    from rank_search.quantization import reestimate_batchnorm
    from rank_search.run import prepare
    from rank_search.run.worker import make_context
    from rank_search.study import load_study
    from rank_search.trials import TrialContext, run_trial

    study = load_study(Path(path))
    untrained = study.training.model_copy(update={"epochs": 0.0})
    torch.set_num_threads(study.launch.torch_threads)
    prepared = prepare(study.model_copy(update={"training": untrained}))
    made: TrialContext = make_context(prepared.problem, prepared.bases, prepared.batches)
    points = [seed.point for seed in prepared.seeds if seed.label != "dense"][:pairs]

    def trial(place: int) -> None:
        run_trial(made, points[place], 0)

    @torch.no_grad()
    def bare(place: int) -> None:
        model = factorize(made.dense, points[place], made.layers, made.plugins, made.bases).eval()
        reestimate_batchnorm(made.task, model, batches=untrained.norm_batches)
        made.task.evaluate(model, made.task.selection())

    trial(0)
    print(f"\n{'by turns, CPU s':<36} {'trial':>11} {'bare':>8} {'ratio':>8}")
    ratios = []
    for place in range(len(points)):
        first, second = (trial, bare) if place % 2 else (bare, trial)
        seconds = {each: cpu_seconds(each, place) for each in (first, second)}
        ratios.append(seconds[trial] / seconds[bare])
        print(f"{'':<36} {seconds[trial]:>11.2f} {seconds[bare]:>8.2f} {ratios[-1]:>8.3f}")
    print(f"a trial takes {statistics.median(ratios):.3f} times the bare evaluation (median), aim {AIM_RATIO:g}")


def cpu_seconds(work: Callable[[int], None], place: int) -> float:
    start = time.process_time()
    work(place)
    return time.process_time() - start


if __name__ == "__main__":
    main()

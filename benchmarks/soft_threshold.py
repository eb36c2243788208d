"""What learned thresholds are worth: ranks of a recurrent network against an SVD trained at these ranks, and bits.

    python -m benchmarks.soft_threshold ranks --folds 4 6 9 14 --epochs 10 --rng-seeds 0 1 2
    python -m benchmarks.soft_threshold bits --folds 3.5 6 12 --strengths 0.1 0.3 1 --epochs 8

Ranks: scikit-learn's digits as sequences of eight rows, a GRU trained on them once for each rng seed; both forms are
trained for equal epochs. Bits: the network of studies/digits.toml.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import rank_search as rs
from rank_search.layers import DirectBases, count_params, load_plugin, opened_inventory, weight_of
from rank_search.layers.costs import count_macs
from rank_search.point import Choice, Outcome, Point
from rank_search.run.preparation import prepare
from rank_search.run.worker import make_context
from rank_search.study import load_study
from rank_search.tasks import seeded
from rank_search.training import FineTuning, TrainingSettings, fine_tune
from rank_search.trials import TrialContext, run_trial

STUDY = Path(__file__).parents[1] / "studies" / "digits.toml"
SEARCHED = ("gru.input_0", "gru.recurrent_0")


class Rows(nn.Module):
    """A GRU over the rows of an image, and a linear layer on its last state."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.gru = nn.GRU(8, width, batch_first=True)
        self.output = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.output(self.gru(x)[0][:, -1])
        return out


def rows_task() -> rs.Supervised:
    """1,000 images to train on, and the other 797 to measure with; nothing is selected by them."""
    digits = load_digits()
    images, labels = torch.tensor(digits.images, dtype=torch.float32) / 16, torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = (TensorDataset(images[part], labels[part]) for part in (order[:1000], order[1000:]))
    batches = DataLoader(train, 50, shuffle=True), DataLoader(test, 400), DataLoader(test, 400)
    return rs.Supervised(Rows(), *batches)


def rows_context(rng_seed: int, epochs: float) -> TrialContext:
    """The network is trained for 40 epochs first."""
    with seeded(rng_seed):
        task = rows_task()
        fine_tune(task, task.network, FineTuning(TrainingSettings(epochs=40, learning_rate=5e-3)))
    found = opened_inventory(task.network, task.example()).layers
    layers = {name: found[name] for name in SEARCHED}
    bases = {name: DirectBases(weight_of(task.network, name)) for name in layers}
    plugins = {name: load_plugin(name) for name in ("svd", "soft-rank")}
    settings = TrainingSettings(epochs=epochs, learning_rate=5e-3)
    return TrialContext(task, task.network, layers, plugins, bases.__getitem__, settings)


def full_rank(context: TrialContext, folds: float) -> Point:
    plugin = context.plugins["soft-rank"]
    highest = {name: int(plugin.axes(layer)[0].high) for name, layer in context.layers.items()}
    return Point({name: Choice("soft-rank", {"rank": rank, "folds": folds}) for name, rank in highest.items()})


def at_ranks(point: Point) -> Point:
    """The SVD of the ranks that a trial has settled at."""
    return Point({name: Choice("svd", {"rank": each.values["rank"]}) for name, each in point.layers.items()})


def ranks(folds: Sequence[float], epochs: float, rng_seeds: Sequence[int]) -> None:
    for rng_seed in rng_seeds:
        context = rows_context(rng_seed, epochs)
        dense, example = context.dense, context.task.example()
        error = context.task.evaluate(dense, context.task.selection())["error"]
        print(f"rng seed {rng_seed}: dense error {error:.2%}", flush=True)
        for each in folds:
            asked = full_rank(context, each)
            soft = run_trial(context, asked, rng_seed)
            settled = soft.settled or asked
            plain = run_trial(context, at_ranks(settled), rng_seed)
            found = [int(choice.values["rank"]) for choice in settled.layers.values()]
            params = plain.measurements["params"] / count_params(dense)
            macs = plain.measurements["macs"] / count_macs(dense, [example])
            errors = f"soft-rank {soft.measurements['error']:.2%}, svd {plain.measurements['error']:.2%}"
            print(f"  folds {each:g}: ranks {found}, params {params:.3f}, macs {macs:.3f}: {errors}", flush=True)


def bits(folds: Sequence[float], strengths: Sequence[float], epochs: float, rng_seeds: Sequence[int]) -> None:
    prepared = prepare(load_study(STUDY))
    made = make_context(prepared.problem, prepared.bases, prepared.batches)
    plugins = {**made.plugins, "soft-threshold": load_plugin("soft-threshold")}
    context = replace(made, plugins=plugins, training=made.training.model_copy(update={"epochs": epochs}))
    for strength in strengths:
        points = {"dense": Point(dict.fromkeys(context.layers, Choice()), {"entropy": strength})}
        for each in folds:
            chosen = dict.fromkeys(context.layers, Choice("soft-threshold", {"folds": each}))
            points[f"folds {each:g}"] = Point(chosen, {"entropy": strength})
        for name, point in points.items():
            outcomes = [run_trial(context, point, rng_seed) for rng_seed in rng_seeds]
            print(f"entropy {strength:g}, {name}: {said(outcomes)}", flush=True)


def said(outcomes: Sequence[Outcome]) -> str:
    found: Sequence[Mapping[str, float]] = [outcome.measurements for outcome in outcomes]
    means = {name: sum(each[name] for each in found) / len(found) for name in ("bits", "nonzeros", "error")}
    errors = ", ".join(f"{each['error']:.2%}" for each in found)
    return f"{means['bits']:,.0f} bits, {means['nonzeros']:,.0f} nonzeros, error {means['error']:.2%} ({errors})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["ranks", "bits"])
    parser.add_argument("--folds", type=float, nargs="+", default=[4.0, 6.0, 9.0, 14.0])
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.1, 0.3, 1.0])
    parser.add_argument("--epochs", type=float, default=10.0)
    parser.add_argument("--rng-seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "ranks":
        ranks(given.folds, given.epochs, given.rng_seeds)
    else:
        bits(given.folds, given.strengths, given.epochs, given.rng_seeds)


if __name__ == "__main__":
    main()

"""rank-search beside other tools, each as a user would write it: one network, a cut of its MACs, nothing trained.

Run: python -m benchmarks.peers studies/cifar_resnet.toml [--options '{"data": "…"}'] [--keep 0.5] [--trials 14]
         [--images 1000] [--ways allocation search optuna aimet tltorch torch-pruning]

Each way gives a network with about that share of the MACs. Those that search measure accuracies on the same selection
images. Batch norms are re-estimated on the same ten batches (also where the tool itself leaves them alone; then the row
before is the network as it comes), MACs and parameters are counted by one counter on the network that is measured, and
the test data is looked at once for each row. CPU seconds are those of this process. A way whose package is not
installed is left out, and said. AIMET and its parts ask for torchvision when they are imported; a stand-in is put in
its place where there is none.
"""

from __future__ import annotations

import argparse
import copy
import importlib.machinery
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final
from unittest.mock import MagicMock

import optuna
import torch
from torch import nn

import rank_search as rs
from rank_search.study import load_task
from rank_search.tasks import seeded

NORMS: Final = 10
CALIBRATION: Final = 2


@dataclass
class Bench:
    """The network, its data, and what has been measured."""

    study: rs.Study
    keep: float
    trials: int
    images: int
    evaluations: int = 0
    task: rs.Task = field(init=False)
    dense: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.task = load_task(self.study)
        self.dense = self.task.model().eval()
        self.batches = list(islice(self._training(), NORMS))
        size = len(next(iter(self.task.selection()))[1])
        self.selection = list(islice(self.task.selection(), max(1, self.images // size)))

    def _training(self) -> Iterator[Any]:
        with seeded(0):
            yield from self.task.training()

    @property
    def convolutions(self) -> dict[str, nn.Conv2d]:
        """Those that are cut: of several pixels, and not the study's excluded ones."""
        found = {name: each for name, each in self.dense.named_modules() if isinstance(each, nn.Conv2d)}
        return {name: each for name, each in found.items() if name not in self.study.layers.exclude}

    @torch.no_grad()
    def with_norms(self, model: nn.Module) -> nn.Module:
        """A copy whose batch norms have the statistics of the ten batches, all alike."""
        model = copy.deepcopy(model).train()
        norms = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        for images, _ in self.batches:
            model(images)
        return model.eval()

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        """On the selection images."""
        self.evaluations += 1
        return 1 - float(self.task.evaluate(model.eval(), self.selection)["error"])

    def macs(self, model: nn.Module) -> int:
        return int(rs.layers(model, self.task.example()).total.macs)

    @torch.no_grad()
    def row(self, name: str, model: nn.Module, evaluations: int, seconds: float) -> None:
        total, whole = (rs.layers(each, self.task.example()).total for each in (model, self.dense))
        selection = self.accuracy(model)
        test = 1 - float(self.task.evaluate(model.eval(), self.task.test() or ())["error"])
        cut = f"{1 - total.macs / whole.macs:.1%} | {1 - total.params / whole.params:.1%}"
        print(f"| {name} | {evaluations} | {cut} | {selection:.2%} | {test:.2%} | {seconds:.0f} |", flush=True)

    def largest_within(self, made: Callable[[float], nn.Module]) -> nn.Module:
        """By bisection over a share from 0 to 1: the network of the largest share that keeps the MACs."""
        low, high = 0.0, 1.0
        target = self.keep * self.macs(self.dense)
        found = made(low + 0.05)
        for _ in range(10):
            middle = (low + high) / 2
            model = made(middle)
            if self.macs(model) <= target:
                low, found = middle, model
            else:
                high = middle
        return found

    def replaced(self, new: Callable[[str, nn.Conv2d], nn.Module]) -> nn.Module:
        """A copy of the network in which convolutions are others."""
        model = copy.deepcopy(self.dense)
        for name, each in self.convolutions.items():
            above, _, own = name.rpartition(".")
            setattr(model.get_submodule(above), own, new(name, each))
        return model


Way = Callable[[Bench], Mapping[str, nn.Module]]
"""Networks by what the rows say of them."""


def allocated(bench: Bench) -> Mapping[str, nn.Module]:
    """No search: three lines."""
    layers, batches = bench.study.layers, bench.batches
    table = rs.options(bench.dense, batches[:CALIBRATION], example=bench.task.example(), layers=layers)
    small = rs.factorize(bench.dense, rs.allocate(table, macs=bench.keep), table, batches)
    return {"rank-search, an allocation": small}


def searched(bench: Bench) -> Mapping[str, nn.Module]:
    """The best of some trials within the bound."""
    with tempfile.TemporaryDirectory() as folder:
        result = rs.compress(
            bench.dense,
            train=bench.batches,
            selection=bench.selection,
            layers=bench.study.layers.model_dump(),
            search={"objectives": ["error", "macs"], "constraints": [f"macs <= {bench.keep} * dense"]},
            training={"epochs": 0},
            trials=bench.trials,
            store=Path(folder) / "store.sqlite",
        )
        bench.evaluations = bench.trials
        best = min(result.front, key=lambda row: row.measurements["error"])
        return {f"rank-search, best of {bench.trials} trials": result.model(best.number)}


class Spatial(nn.Sequential):
    """A convolution as one down the columns and one along the rows, by an SVD of its weight."""

    def __init__(self, conv: nn.Conv2d, rank: int) -> None:
        out, entering, height, width = conv.weight.shape
        unfolded = conv.weight.detach().permute(1, 2, 0, 3).reshape(entering * height, out * width)
        U, s, V = torch.linalg.svd(unfolded, full_matrices=False)
        down, along = (int(step) for step in conv.stride)
        first = nn.Conv2d(entering, rank, (height, 1), (down, 1), (height // 2, 0), bias=False)
        second = nn.Conv2d(rank, out, (1, width), (1, along), (0, width // 2), bias=False)
        root = s[:rank].sqrt()
        first.weight.data = (U[:, :rank] * root).T.reshape(rank, entering, height, 1)
        second.weight.data = (V[:rank] * root[:, None]).reshape(rank, out, 1, width).transpose(0, 1)
        super().__init__(first, second)


def largest_rank(conv: nn.Conv2d) -> int:
    """That saves MACs."""
    out, entering, height, width = conv.weight.shape
    return max(1, (out * entering * height * width - 1) // (entering * height * int(conv.stride[1]) + out * width))


def with_optuna(bench: Bench) -> Mapping[str, nn.Module]:
    """One rank for each layer, TPE, one objective and a constraint on the MACs."""
    target, kept = bench.keep * bench.macs(bench.dense), dict[int, nn.Module]()
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.Trial) -> float:
        ranks = {name: trial.suggest_int(name, 1, largest_rank(each)) for name, each in bench.convolutions.items()}
        model = bench.with_norms(bench.replaced(lambda name, each: Spatial(each, ranks[name])))
        kept[trial.number] = model
        trial.set_user_attr("over", bench.macs(model) - target)
        return bench.accuracy(model)

    sampler = optuna.samplers.TPESampler(seed=0, constraints_func=lambda trial: (trial.user_attrs["over"],))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=max(60, bench.trials))
    within = [each for each in study.trials if each.user_attrs["over"] <= 0 and each.value is not None]
    if not within:
        print(f"(Optuna's {len(study.trials)} trials have none with {bench.keep:.0%} of the MACs)")
        return {}
    best = max(within, key=lambda trial: trial.value or 0.0)
    return {f"Optuna TPE with a constraint, best of {len(study.trials)}": kept[best.number]}


def with_aimet(bench: Bench) -> Mapping[str, nn.Module]:
    """Spatial SVD, ratios by its greedy search."""
    _stand_in_for_torchvision()
    names, defs = (importlib.import_module(f"aimet_torch.{name}") for name in ("common.defs", "defs"))
    compress = importlib.import_module("aimet_torch.compress").ModelCompressor.compress_model
    form = defs.SpatialSvdParameters
    greedy = names.GreedySelectionParameters(target_comp_ratio=bench.keep, num_comp_ratio_candidates=10)
    model = copy.deepcopy(bench.dense)
    ignored = [model.get_submodule(name) for name in bench.study.layers.exclude]
    auto = form.AutoModeParams(greedy, modules_to_ignore=ignored)
    small, _ = compress(
        model,
        eval_callback=lambda model, iterations, use_cuda: bench.accuracy(model),
        eval_iterations=None,
        input_shape=tuple(bench.batches[0][0][:1].shape),
        compress_scheme=names.CompressionScheme.spatial_svd,
        cost_metric=names.CostMetric.mac,
        parameters=form(form.Mode.auto, auto, multiplicity=1),
    )
    found = bench.with_norms(small)
    return {"AIMET, greedy spatial SVD, as it comes": small, "the same, batch norms re-estimated": found}


def with_tltorch(bench: Bench) -> Mapping[str, nn.Module]:
    """Tucker forms of one share of their parameters in every layer."""
    from_conv = importlib.import_module("tltorch").FactorizedConv.from_conv
    form = {"factorization": "tucker", "implementation": "factorized", "fixed_rank_modes": "spatial"}

    def made(share: float) -> nn.Module:
        return bench.replaced(lambda name, each: from_conv(each, rank=max(share, 0.01), **form))

    return {"tltorch, Tucker, equal shares": bench.with_norms(bench.largest_within(made))}


def with_torch_pruning(bench: Bench) -> Mapping[str, nn.Module]:
    """Channels of least norm over the whole network."""
    pruning = importlib.import_module("torch_pruning")
    example = bench.batches[0][0][:1]

    def made(share: float) -> nn.Module:
        model = copy.deepcopy(bench.dense)
        pruner = pruning.pruner.MetaPruner(
            model,
            example,
            importance=pruning.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=1 - share,
            ignored_layers=[model.get_submodule("linear")],
        )
        pruner.step()
        return model

    return {"Torch-Pruning, global magnitude": bench.with_norms(bench.largest_within(made))}


WAYS: Final[Mapping[str, tuple[str, Way]]] = {
    "allocation": ("rank_search", allocated),
    "search": ("rank_search", searched),
    "optuna": ("optuna", with_optuna),
    "aimet": ("aimet_torch", with_aimet),
    "tltorch": ("tltorch", with_tltorch),
    "torch-pruning": ("torch_pruning", with_torch_pruning),
}


def _stand_in_for_torchvision() -> None:
    for name in ("torchvision", *(f"torchvision.{part}" for part in ("ops", "models", "transforms", "datasets"))):
        if importlib.util.find_spec("torchvision") is None or "torchvision" in sys.modules:
            sys.modules.setdefault(name, MagicMock(__spec__=importlib.machinery.ModuleSpec(name, None)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--keep", type=float, default=0.5, help="share of the MACs")
    parser.add_argument("--trials", type=int, default=14)
    parser.add_argument("--images", type=int, default=1000, help="of the selection data")
    parser.add_argument("--ways", nargs="*", default=[*WAYS], choices=[*WAYS])
    given = parser.parse_args()
    torch.set_num_threads(1)
    study = rs.load_study(given.study)
    task = study.task.model_copy(update={"options": {**study.task.options, **given.options}})
    bench = Bench(study.model_copy(update={"task": task}), given.keep, given.trials, given.images)
    print("| way | evaluations | fewer MACs | fewer parameters | selection | test | CPU s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    bench.row("dense", bench.dense, 0, 0.0)
    for name in given.ways:
        package, way = WAYS[name]
        if importlib.util.find_spec(package) is None:
            print(f"({name} is left out: {package} is not installed)")
            continue
        began, bench.evaluations = time.process_time(), 0
        found = way(bench)
        evaluations, seconds = bench.evaluations, time.process_time() - began
        for label, model in found.items():
            bench.row(label, model, evaluations, seconds)


if __name__ == "__main__":
    main()

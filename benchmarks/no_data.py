"""Fits without data: what calibration on each source of inputs leaves of the accuracy, untrained.

Run: python -m benchmarks.no_data studies/cifar_resnet.toml --data DIR --weights 20=FILE 32=FILE [--cuts 0.3 0.5 0.7]
         [--distill 20 --from-source synthetic]

For each network, each cut of the MACs and each source: the allocation of least Σ error with at most as many MACs,
fitted to the outputs on that source's inputs, or to the weights alone. Nothing is trained, and nothing is selected.
With `--distill N` each fit is then trained for N passes over the source's inputs to give the dense network's outputs
(KL, temperature 1, AdamW), statistics kept; with `--from-source` all of these trainings begin at one source's fit, so
that they differ in their inputs alone.
Batch norms keep the dense network's statistics, or with `--again` take them again on the same inputs. The error is that
on the test data. Sources: `real` are the first training images, as many as there are of `synthetic` and `gaussian`
ones; `analytic` has no images. A row is printed as soon as it is measured; seconds are of the process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.layers import LayersSettings, load_plugin, opened_inventory, weight_of
from rank_search.options import CostModel, build_groups, fits_of, measured_table
from rank_search.priors import SpectraCache
from rank_search.sources import SynthesisSettings, analytic_moments, cached, contact_sheet, gaussian_inputs
from rank_search.study import load_task
from rank_search.tasks import moments_of_inputs, seeded
from rank_search.training import FineTuning, TrainingSettings, fine_tune

SOURCES: Final = ("real", "synthetic", "weights", "analytic", "gaussian")
IMAGES: Final = 128


def table_of(
    model: nn.Module, example: Tensor, settings: LayersSettings, moments: Mapping[str, Tensor]
) -> rs.OptionTable:
    """The option table of fits to these moments; of layers without one to their weight."""
    plugins = {name: load_plugin(name) for name in settings.plugin_names()}
    inventory = opened_inventory(model, example, settings.include, settings.exclude)
    layers = inventory.layers
    groups = build_groups(layers, plugins, {}, settings.choices(layers, plugins))
    spectra = SpectraCache()
    bases = {
        name: spectra.bases(name, weight_of(model, name), moments.get(name))
        for group in groups
        for name in group.layers
    }
    costs = CostModel(layers, plugins, inventory.rest)
    bits = sum(8 * each.numel() * each.element_size() for each in model.parameters())
    return measured_table(groups, costs, fits_of(layers, plugins, bases, Path.cwd(), example), 1, bits)


def inputs_of(source: str, task: rs.Task, settings: SynthesisSettings, cache: Path) -> list[Any]:
    """The inputs to calibrate on; none of sources without images."""
    model, example = task.model(), task.example()
    if source == "real":
        with seeded(0):
            return [images for images, _ in islice(task.training(), settings.batches * IMAGES // 128)]
    if source == "gaussian":
        return gaussian_inputs(example, batches=settings.batches, batch_size=IMAGES, seed=0)
    return cached(model, example, settings=settings, seed=0, folder=cache) if source == "synthetic" else []


def moments_on(source: str, inputs: Sequence[Any], model: nn.Module, example: Tensor) -> dict[str, Tensor]:
    layers = opened_inventory(model, example).layers
    if source == "analytic":
        return analytic_moments(model, example, layers)
    return moments_of_inputs(model, layers, inputs) if inputs else {}


def test_error(task: rs.Task, model: nn.Module) -> float:
    with torch.no_grad():
        return 100 * task.evaluate(model, task.test() or ())["error"]


def distilled(model: nn.Module, dense: nn.Module, inputs: Sequence[Any], passes: int) -> nn.Module:
    """The model trained on inputs without labels to answer as the dense one."""
    task = rs.AgreementTask(dense, training_batches=inputs, selection_batches=inputs, made_up="inputs of a source")
    settings = TrainingSettings(epochs=passes, learning_rate=1e-3, warmup=0.1)
    with seeded(0):
        if diverged := fine_tune(task, model, FineTuning(settings)):
            raise SystemExit(f"The distillation diverged: {diverged.reason}.")
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--data", required=True, help="folder of the images, as the study's task takes it")
    parser.add_argument("--weights", nargs="+", required=True, help="DEPTH=FILE of each network")
    parser.add_argument("--cuts", nargs="+", type=float, default=[0.3, 0.5, 0.7])
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=SOURCES)
    parser.add_argument("--factorizations", nargs="+", help="those of the study, if not said")
    parser.add_argument("--steps", type=int, default=SynthesisSettings().steps)
    parser.add_argument("--batches", type=int, default=1, help="of 128 images each")
    parser.add_argument("--again", action="store_true", help="also with statistics taken again")
    parser.add_argument("--distill", type=int, default=0, metavar="PASSES", help="over each source's inputs")
    parser.add_argument("--from-source", choices=SOURCES, help="whose fits all distillations begin at")
    parser.add_argument("--cache", type=Path, default=Path("runs/no_data"))
    parser.add_argument("--sheets", type=Path, help="folder for pictures of the synthetic images")
    given = parser.parse_args()
    torch.set_num_threads(1)
    study, synthesis = rs.load_study(given.study), SynthesisSettings(steps=given.steps, batches=given.batches)
    layers = study.layers
    if given.factorizations:
        layers = layers.model_copy(update={"factorizations": tuple(given.factorizations)})
    for depth, weights in (each.split("=", 1) for each in given.weights):
        options = {**study.task.options, "data": given.data, "weights": weights, "depth": int(depth)}
        task = load_task(study.model_copy(update={"task": study.task.model_copy(update={"options": options})}))
        model, example = task.model(), task.example()
        known = {}
        for source in dict.fromkeys([*([given.from_source] if given.from_source else []), *given.sources]):
            start = time.process_time()
            inputs = inputs_of(source, task, synthesis, given.cache)
            if source == "synthetic" and given.sheets:
                given.sheets.mkdir(parents=True, exist_ok=True)
                contact_sheet(inputs, given.sheets / f"resnet{depth}.png")
            table = table_of(model, example, layers, moments_on(source, inputs, model, example))
            known[source] = table, inputs
            print(f"ResNet-{depth}  {source:9}  {time.process_time() - start:6.1f} s for inputs and table", flush=True)
        for source, cut in product(given.sources, given.cuts):
            table, inputs = known[source]
            point = rs.allocate(table, macs=1 - cut).point
            said = f"ResNet-{depth}  {source:9}  {cut:.0%} fewer MACs "
            for again in (False, True) if given.again and inputs else (False,):
                small = rs.factorize(model, point, table, inputs if again else None)
                norms = "taken again" if again else "kept"
                print(f"{said} statistics {norms:11}  test error {test_error(task, small):5.2f} %", flush=True)
            if given.distill and inputs:
                first, _ = known[given.from_source or source]
                begun = rs.factorize(model, rs.allocate(first, macs=1 - cut).point, first, None)
                small = distilled(begun, model, inputs, given.distill)
                print(f"{said} distilled                test error {test_error(task, small):5.2f} %", flush=True)


if __name__ == "__main__":
    main()

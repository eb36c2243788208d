"""Accuracy without any training: which rule spreads the cost, and what fits that look at data bring.

Run: python -m benchmarks.one_shot studies/cifar_resnet.toml [--options '{"data": "…"}'] [--cuts 0.3 0.5 0.7]

For each cut of the MACs and each rule, one point with as many MACs as the cut allows, fitted to the weights alone and
to the outputs on calibration data; batch norms are re-estimated, nothing is trained, nothing is selected. The
accuracy is that on the test data. Uniform, relative tail and weakened EVBMF use the first factorization for all
layers; the allocation chooses among all of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from rank_search.layers import factorize
from rank_search.options import AxisRange, lagrangian_front, mean_shares, normalized, price_of
from rank_search.point import Choice, Point
from rank_search.priors.cache import CachedBases
from rank_search.priors.rules import tail_rank
from rank_search.quantization import reestimate_batchnorm
from rank_search.run import Prepared, prepare, weight_of
from rank_search.study import Study, load_study
from rank_search.tasks import seeded

STEPS: Final = 400

PointAt = Callable[[Prepared, float], Point]
"""A rule's point at a level from 0 (all kept) to 1."""


def bases_of(prepared: Prepared, layer: str) -> CachedBases:
    weight = weight_of(prepared.problem.model, layer)
    return prepared.cache.bases(layer, weight, prepared.moments.get(layer))


def everywhere(value: Callable[[Prepared, str, AxisRange, int, float], float]) -> PointAt:
    """The same rule for every axis of the first factorization."""

    def point(prepared: Prepared, level: float) -> Point:
        layers = {}
        for group in prepared.space.groups:
            name = group.factorizations[0]
            for layer, by_name in group.axes.items():
                pairs = enumerate(by_name[name])
                values = {axis.name: axis.snap(value(prepared, layer, axis, place, level), 1) for place, axis in pairs}
                layers[layer] = normalized(prepared.costs, layer, Choice(name, values))
        return Point(layers)

    return point


def tail(prepared: Prepared, layer: str, axis: AxisRange, place: int, level: float) -> float:
    name = next(group.factorizations[0] for group in prepared.space.groups if layer in group.axes)
    unfolding = prepared.problem.plugins[name].axes(prepared.problem.inventory.layers[layer])[place].unfoldings[0]
    return tail_rank(bases_of(prepared, layer).spectrum(unfolding), level)


def allocation(prepared: Prepared, level: float) -> Point:
    """The level is the place on the exact front."""
    assert prepared.options is not None
    options = prepared.options
    menus = [options.of[group.name] for group in prepared.space.groups]
    shares = mean_shares(["error", "macs"])
    costs = [[price_of(option, shares, options.dense) for option in menu] for menu in menus]
    front = lagrangian_front(costs, [[option.error for option in menu] for menu in menus])
    chosen = front[round(level * (len(front) - 1))].chosen
    layers: dict[str, Choice] = {}
    for menu, place in zip(menus, chosen, strict=True):
        layers |= menu[place].choices
    return Point(layers)


RULES: Final[Mapping[str, PointAt]] = {
    "uniform": everywhere(lambda prepared, layer, axis, place, level: (1 - level) * axis.high),
    "EVBMF, weakened": everywhere(lambda prepared, layer, axis, place, level: axis.at(2 * level)),
    "relative tail": everywhere(tail),
    "allocation": allocation,
}


def within(prepared: Prepared, rule: PointAt, kept: float) -> Point:
    """The rule's most generous point with at most that share of the MACs."""
    most = kept * prepared.costs.dense["macs"]
    levels = (step / STEPS for step in range(STEPS + 1))
    found = ((prepared.costs.cost(point)["macs"], point) for point in (rule(prepared, level) for level in levels))
    fitting = [(macs, place, point) for place, (macs, point) in enumerate(found) if macs <= most]
    return max(fitting, key=lambda each: (each[0], -each[1]))[2]


@torch.no_grad()
def test_error(prepared: Prepared, point: Point) -> float:
    problem = prepared.problem
    layers, plugins = problem.inventory.layers, problem.plugins
    model = factorize(problem.model, point, layers, plugins, lambda layer: bases_of(prepared, layer))
    with seeded(0):
        reestimate_batchnorm(problem.task, model, batches=problem.study.training.norm_batches)
    return float(problem.task.evaluate(model.eval(), problem.task.test() or ())["error"])


def made(study: Study, calibration: int) -> Prepared:
    priors = study.priors.model_copy(update={"calibration": calibration})
    return prepare(study.model_copy(update={"priors": priors}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--cuts", nargs="*", type=float, default=[0.3, 0.5, 0.7])
    given = parser.parse_args()
    torch.set_num_threads(1)
    study = load_study(given.study)
    task = study.task.model_copy(update={"options": {**study.task.options, **given.options}})
    training = study.training.model_copy(update={"batchnorm_batches": 10})
    study = study.model_copy(update={"task": task, "training": training})
    both: dict[str, Any] = {"weights": made(study, 0), "outputs": made(study, study.priors.calibration or 2)}
    for cut in given.cuts:
        for name, rule in RULES.items():
            for fitted, prepared in both.items():
                point = within(prepared, rule, 1 - cut)
                dense, cost = prepared.costs.dense, prepared.costs.cost(point)
                macs, params = (1 - cost[key] / dense[key] for key in ("macs", "params"))
                error = test_error(prepared, point)
                print(
                    f"cut {cut:.0%}  {name:16} fitted to {fitted:8} {macs:.1%} fewer MACs, "
                    f"{params:.1%} fewer parameters, accuracy {1 - error:.2%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()

"""How far repeated measurements of one model's latency spread: as before, and in pairs with the dense model.

Run: python -m benchmarks.latency [--repeats 10] [--batch 1]

A residual network of random weights, and the same with its wide layers in Tucker-2 at a quarter of their ranks.
*Before*: the median of 30 forwards of the plain module, in seconds; also divided by the dense model's, measured once.
*Pairs*: what a trial reports now. Spread is the largest less the smallest, over the median; deviation the standard
deviation over the mean.
The ways take turns, so each meets the same noise.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.networks import EXAMPLE, ResNet
from rank_search.layers import DirectBases, deployed, factorize, load_plugin, take_inventory
from rank_search.point import Choice, Point
from rank_search.trials import LatencySettings
from rank_search.trials.latency import measure_latency_ratio


def tucker(model: nn.Module, example: Tensor) -> nn.Module:
    layers = take_inventory(model, example).layers
    wide = {name: layer for name, layer in layers.items() if layer.kind == "conv2d" and layer.in_features >= 32}
    choices = {
        name: Choice("tucker2", {"rank_out": layer.out_features // 4, "rank_in": layer.in_features // 4})
        for name, layer in wide.items()
    }
    plugins = {"tucker2": load_plugin("tucker2")}
    return factorize(model, Point(choices), layers, plugins, lambda name: DirectBases(weight(model, name)))


def weight(model: nn.Module, name: str) -> Tensor:
    return model.get_submodule(name).get_parameter("weight").detach()


@torch.no_grad()
def median_of_forwards(model: nn.Module, batch: Tensor, repeats: int = 30) -> float:
    """As trials measured it before."""
    for _ in range(3):
        model(batch)
    return statistics.median(timed(lambda: model(batch)) for _ in range(repeats))


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def show(name: str, values: list[float], unit: str) -> None:
    middle = statistics.median(values)
    spread = (max(values) - min(values)) / middle
    deviation = statistics.stdev(values) / statistics.mean(values)
    print(f"{name:44} {middle:9.4g} {unit:3} {spread:9.1%} {deviation:9.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--batch", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dense, example = ResNet(), torch.randn(EXAMPLE)
    small, settings = tucker(dense, example), LatencySettings(batch=arguments.batch)
    batch = torch.cat([example] * arguments.batch)
    dense_before = median_of_forwards(dense, batch)
    before, pairs, itself = [], [], []
    for _ in range(arguments.repeats):
        before.append(median_of_forwards(small, batch))
        pairs.append(measure_latency_ratio(dense, small, example, settings))
        itself.append(measure_latency_ratio(dense, dense, example, settings))
    one, other = deployed(dense, small, example=example)
    print(f"norms folded: {not any(isinstance(each, nn.BatchNorm2d) for each in [*one.modules(), *other.modules()])}")
    print(f"{arguments.repeats} repeats, batch {arguments.batch}{'median':>33} {'spread':>13} {'deviation':>9}")
    show("before: median of forwards", [1e3 * value for value in before], "ms")
    show("before, over the dense model's, measured once", [value / dense_before for value in before], "×")
    show("pairs: latency_ratio", pairs, "×")
    show("pairs: the dense model and itself", itself, "×")


if __name__ == "__main__":
    main()

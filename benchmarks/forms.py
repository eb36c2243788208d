"""Which factorized forms are really faster than the dense layer on this CPU.

Run: python -m benchmarks.forms [--batches 1 64]

For layers of usual shapes and each factorization at 10, 25 and 50 % of its largest rank: multiply-adds of the dense
layer over the form's, and how many times faster it runs, as a study measures it (by turns, one thread). Forms that have
no fewer multiply-adds are left out: a search takes them for dense anyway.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from rank_search.layers import Factorization, Layer, layer_cost, load_plugin
from rank_search.point import Choice
from rank_search.trials import LatencySettings, form_ratio

CONVOLUTIONS = [(16, 32), (32, 16), (64, 8), (128, 16), (256, 14)]  # channels, rows and columns
SHARES = (0.1, 0.25, 0.5)


def layers() -> list[tuple[str, Layer]]:
    found = []
    for channels, size in CONVOLUTIONS:
        module = nn.Conv2d(channels, channels, 3, padding=1, bias=False, device="meta")
        found.append((f"{channels}→{channels} @ {size}²", with_input(module, (1, channels, size, size))))
    return [*found, ("linear 512×512", with_input(nn.Linear(512, 512, device="meta"), (1, 512)))]


def with_input(module: nn.Module, shape: tuple[int, ...]) -> Layer:
    layer = Layer.of(module)
    return Layer(**{**vars(layer), "inputs": (shape,)})


def cell(layer: Layer, name: str, plugin: type[Factorization], share: float, batch: int) -> str:
    axes = plugin.axes(layer)
    if not axes:
        return "–"
    choice = Choice(name, {axis.name: max(1, round(share * axis.high)) for axis in axes})
    dense, form = layer_cost(layer, None, Choice()), layer_cost(layer, plugin, choice)
    if form.macs >= dense.macs:
        return "–"
    ratio = form_ratio(layer, plugin, choice, LatencySettings(batch=batch))
    return f"{dense.macs / form.macs:.1f} → {1 / ratio:.2f}" if ratio else "?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plugins = {name: load_plugin(name) for name in ("svd", "svd-spatial", "tucker2", "cp")}
    heads = "".join(f" | {f'{name} {share:.0%}':>15}" for name in plugins for share in SHARES)
    print(f"{'fewer MACs → times faster':24} | batch{heads}")
    for batch in arguments.batches:
        for title, layer in layers():
            cells = [cell(layer, name, plugin, share, batch) for name, plugin in plugins.items() for share in SHARES]
            print(f"{title:24} | {batch:5}{''.join(f' | {each:>15}' for each in cells)}", flush=True)


if __name__ == "__main__":
    main()

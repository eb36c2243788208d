"""How long opened modules take, in units of PyTorch's own operation, as a trial measures it.

Run: python -m benchmarks.opened [--repeats 10] [--steps 64]

Random weights, one thread. A module is opened without a factorization (*dense*), and with the matrices of some of its
layers as an SVD of an eighth of the width.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rank_search.layers import DirectBases, factorize, load_plugin, opened_for, opened_inventory, weight_of
from rank_search.point import Choice, Point
from rank_search.trials import LatencySettings
from rank_search.trials.latency import measure_latency_ratio

SHARE = 8
CUTS = {"nothing": (), "inputs": ("input",), "states": ("recurrent",), "all": ("",)}


class Attending(nn.Module):
    """Of a sequence to itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return found


def recurrent(kind: type[nn.LSTM] | type[nn.GRU], width: int) -> nn.Module:
    return nn.Sequential(kind(width, width, batch_first=True))


def cut(model: nn.Module, example: Tensor, words: Sequence[str]) -> nn.Module:
    """The model with every layer that has such a word in its name cut; with everything opened if there is no word."""
    layers = opened_inventory(model, example).layers
    chosen = [name for name in layers if any(word in name for word in words)]
    if not chosen:
        return opened_for(model, layers)
    ranks = {name: Choice("svd", {"rank": min(layers[name].shape) // SHARE}) for name in chosen}
    plugins = {"svd": load_plugin("svd")}
    return factorize(model, Point(ranks), layers, plugins, lambda name: DirectBases(weight_of(model, name)))


def row(name: str, model: nn.Module, example: Tensor, cuts: Sequence[str], settings: LatencySettings) -> str:
    found = [measure_latency_ratio(model, cut(model, example, CUTS[each]), example, settings) for each in cuts]
    return f"{name:24}" + "".join(f"{each} {ratio:<8.2f}" for each, ratio in zip(cuts, found, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--steps", type=int, default=64)
    given = parser.parse_args()
    torch.manual_seed(0)
    kinds: dict[str, Callable[[int], nn.Module]] = {
        "LSTM": lambda width: recurrent(nn.LSTM, width),
        "GRU": lambda width: recurrent(nn.GRU, width),
        "attention": Attending,
    }
    for name, make in kinds.items():
        for width in (128, 512):
            for batch in (1, 32):
                model, example = make(width).eval().requires_grad_(False), torch.randn(1, given.steps, width)
                settings = LatencySettings(repeats=given.repeats, batch=batch, threads=1)
                cuts = ("nothing", "all") if name == "attention" else tuple(CUTS)
                print(row(f"{name}, {width} wide, {batch}", model, example, cuts, settings), flush=True)


if __name__ == "__main__":
    main()

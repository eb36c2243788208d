"""Start, ask and record of a search over hundreds of layers, beside the calibration pass and beside 60 layers.

Run: python -m benchmarks.many_layers [--blocks 9 32 43] [--width 128] [--batches 16] [--trials 1000]

A network of random weights made as Llama is: blocks of seven linear layers, one before and one after them. 43 blocks
are 303 layers. Start is everything before the first trial: the inventory, the calibration pass, the spectra, the option
table with all errors, the seed points, an empty cache. Then a store and a searcher (`auto`) that is fed with that many
made-up trials, asked and told. Each once with a pair of coordinates for every layer, and once tied as Bolaco ties them,
five types times groups of four blocks. CPU seconds.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.artifacts import ArtifactStore
from rank_search.launch import InProcess, SearchDriver, SearchPlan
from rank_search.point import Objective, Outcome, Point, State
from rank_search.run import begin, layer_moments, prepare
from rank_search.run.preparation import Prepared
from rank_search.search import AutoSearcher, Rungs, SearchTrial
from rank_search.store import Store, StudyRecord
from rank_search.study import Study
from rank_search.tasks import Supervised

TIED = (["layers.{block:4}.attention.(q|k)"], ["layers.{block:4}.attention.o"], ["layers.{block:4}.mlp.{part}"])
TRIED, AIM_ASK, AIM_START = 20, 0.5, 1.3


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (each(x)[:, None] for each in (self.q, self.k, self.v))
        mixed: Tensor = self.o(F.scaled_dot_product_attention(q, k, v)[:, 0])
        return mixed


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return mixed


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(width), Mlp(width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class Deep(nn.Module):
    """Blocks of seven linear layers, one before and one after them."""

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Linear(width, width), nn.Linear(width, width)
        self.layers = nn.ModuleList(Block(width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.layers:
            x = block(x)
        return self.head(x)  # type: ignore[no-any-return]


def study(folder: Path, batches: int, tie: Sequence[Sequence[str]] = (), memory: str | None = None) -> Study:
    return Study.model_validate(
        {
            "study": {"name": "deep", "trials": 10, "store": str(folder / "store.sqlite"), "cache": str(folder)},
            "task": {"factory": "nothing.py:nothing"},
            "search": {"objectives": [{"name": "loss"}, {"name": "params"}]},
            "layers": {"factorizations": ["svd"], "tie": tie},
            "priors": {"calibration": batches, "memory": memory},
        }
    )


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    found = work()
    return time.process_time() - begun, found


def measured(blocks: int, width: int, batches: int, trials: int, tie: Sequence[Sequence[str]]) -> str:
    data = [(torch.randn(16, 128, width),) * 2 for _ in range(batches)]
    task = Supervised(Deep(blocks, width).eval(), data, data, loss_function=F.mse_loss)
    with tempfile.TemporaryDirectory() as name:
        settings = study(Path(name), batches, tie)
        start, prepared = seconds(lambda: prepare(settings, task))
        calibration, _ = seconds(lambda: layer_moments(begin(settings, task), batches))
        ask, record = asked(prepared, trials, Path(name))
    layers, coordinates = len(prepared.problem.inventory.layers), 2 * len(prepared.space.groups)
    return (
        f"{layers:6} {coordinates:11} {calibration:11.2f} {start:8.2f} {start / calibration:6.2f}"
        f" {1e3 * ask:9.0f} {1e3 * record:16.1f}"
    )


def asked(prepared: Prepared, trials: int, folder: Path) -> tuple[float, float]:
    """CPU seconds of an ask with its tell, and of all else that the driver does for a trial, claim and record."""
    assert prepared.options is not None
    settings, dense = prepared.problem.study.search, {**prepared.costs.dense, "loss": 0.0}
    searcher = AutoSearcher(prepared.space, prepared.options, settings, prepared.seeds, dense, 0)
    searcher.feed(past(prepared, trials))
    inside: list[float] = []

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            spent, found = seconds(lambda: method(*args))
            inside.append(spent)
            return found

        return wrapper

    searcher.ask, searcher.tell = timed(searcher.ask), timed(searcher.tell)  # type: ignore[method-assign]
    objectives = (Objective("loss"), Objective("params"))
    corner, ideal = {**prepared.costs.dense, "loss": 9.0}, {"loss": 0.0, "params": 0.0}
    record = StudyRecord("deep", {}, {}, objectives, corner, ideal, dense, 1.0)
    with Store.open(folder / "store.sqlite", create=True) as store:
        plan = SearchPlan(TRIED, Rungs(None, 1.0), 0, (), lambda point: None, 0, ArtifactStore(folder))
        driver = SearchDriver(
            store, store.join(record), searcher, InProcess(lambda job: made_up(prepared, job.point)), plan
        )
        whole, _ = seconds(driver.run)
    asks = [first + second for first, second in zip(inside[::2], inside[1::2], strict=False)]
    return median(asks), (whole - sum(inside)) / TRIED


def past(prepared: Prepared, trials: int) -> list[SearchTrial]:
    """Trials that choose for every group at random, all seed points among them."""
    assert prepared.options is not None
    rng = np.random.default_rng(0)
    menus = list(prepared.options.of.values())
    found = [
        SearchTrial(place, each.point, {"label": each.label, "coordinates": {}}, made_up(prepared, each.point))
        for place, each in enumerate(prepared.seeds)
    ]
    for number in range(len(found), trials):
        chosen = [options[int(rng.integers(len(options)))] for options in menus]
        point = Point({layer: choice for option in chosen for layer, choice in option.choices.items()})
        found.append(
            SearchTrial(number, point, {"label": f"trial {number}", "coordinates": {}}, made_up(prepared, point))
        )
    return found


def made_up(prepared: Prepared, point: Point) -> Outcome:
    assert prepared.options is not None
    error = sum(each.error for each in prepared.options.describe(point))
    return Outcome(State.COMPLETE, {"loss": math.log1p(error), **prepared.costs.cost(point)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs="+", default=[9, 32, 43])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--trials", type=int, default=1000)
    chosen = parser.parse_args()
    print(f"width {chosen.width}, {chosen.batches} batches of 2,048 positions, {chosen.trials} trials; CPU time")
    print("layers coordinates  the pass, s start, s  ratio  ask, ms  claim+record, ms")
    for blocks in chosen.blocks:
        for tie in ((), TIED):
            print(measured(blocks, chosen.width, chosen.batches, chosen.trials, tie), flush=True)
    print(f"aims: an ask in {AIM_ASK} s at 300 coordinates, start within {AIM_START} times the calibration pass")


if __name__ == "__main__":
    main()

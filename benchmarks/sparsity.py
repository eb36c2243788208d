"""What the sparsity penalty does: digits trained from one allocation under several strengths, beside other allocations.

    python -m benchmarks.sparsity --macs 0.5 0.3 0.2 0.15 0.1 --start 0.5 --strengths 1 1.5 2 3 --rng-seeds 0 1 2

Shares are of the dense model; errors are on the selection images, the mean over rng seeds. All train for equal epochs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import rank_search as rs
from rank_search.options import OptionTable
from rank_search.point import Point
from rank_search.run.preparation import prepare
from rank_search.run.worker import make_context
from rank_search.study import load_study
from rank_search.trials import TrialContext, run_trial

STUDY = Path(__file__).parents[1] / "studies" / "digits.toml"


def row(context: TrialContext, point: Point, dense: Mapping[str, float], rng_seeds: Sequence[int]) -> str:
    found = [run_trial(context, point, rng_seed).measurements for rng_seed in rng_seeds]
    means = {name: sum(each[name] for each in found) / len(found) for name in ("error", "macs", "params")}
    errors = ", ".join(f"{each['error']:.2%}" for each in found)
    return (
        f"macs {means['macs'] / dense['macs']:.3f} params {means['params'] / dense['params']:.3f} "
        f"error {means['error']:.2%} ({errors})"
    )


def allocated(options: OptionTable, share: float) -> Point:
    return Point(rs.allocate(options, macs=share).point.layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--macs", type=float, nargs="*", default=[0.5, 0.3, 0.2, 0.15, 0.1])
    parser.add_argument("--start", type=float, nargs="+", default=[0.5])
    parser.add_argument("--strengths", type=float, nargs="*", default=[1.0, 1.5, 2.0, 3.0])
    parser.add_argument("--rng-seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    prepared = prepare(load_study(STUDY))
    context, options = make_context(prepared.problem, prepared.bases, prepared.batches), prepared.options
    assert options is not None
    dense = prepared.costs.dense
    for share in given.macs:
        print(f"allocation {share:g}:", row(context, allocated(options, share), dense, given.rng_seeds), flush=True)
    for start in given.start:
        layers = allocated(options, start).layers
        for strength in given.strengths:
            point = Point(layers, {"sparsity": strength})
            print(f"from {start:g}, sparsity {strength:g}:", row(context, point, dense, given.rng_seeds), flush=True)


if __name__ == "__main__":
    main()

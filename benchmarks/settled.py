"""What settling drops: each trial of the digits study measured as it was asked for, and as it has settled.

    python -m benchmarks.settled --macs 0.45 0.25 --prices 0.1 0.3 1 3

A trial is trained once; its model is then coded, decoded and measured both ways. Shares are of what was asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import rank_search as rs
from rank_search.coding import encode
from rank_search.point import Point
from rank_search.run.preparation import prepare
from rank_search.run.worker import make_context
from rank_search.study import load_study
from rank_search.trials import TrialContext, run_trial, trial
from rank_search.trials.settling import Settled, settled

STUDY = Path(__file__).parents[1] / "studies" / "digits.toml"
COSTS = ("params", "macs", "bits")


@contextmanager
def measured_as_asked(context: TrialContext) -> Iterator[dict[str, float]]:
    """The measurements of what trials inside have trained, before it settles."""
    found: dict[str, float] = {}

    def settle(model: Any, trained: Settled, round_to: int) -> Settled:
        found.update(trial._measured(context, trained.point, encode(trained.state, trained.grids)).measurements)
        return settled(model, trained, round_to)

    with patch.object(trial, "settled", settle):
        yield found


def row(context: TrialContext, point: Point) -> Mapping[str, float]:
    with measured_as_asked(context) as before:
        after = run_trial(context, point, 0).measurements
    shares = {name: round(after[name] / before[name], 3) for name in COSTS}
    return {**shares, "error before": before["error"], "error after": after["error"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--macs", type=float, nargs="+", default=[0.45, 0.25])
    parser.add_argument("--prices", type=float, nargs="+", default=[0.1, 0.3, 1.0, 3.0])
    parser.add_argument("--epochs", type=float, default=18.0)
    given = parser.parse_args()
    study = load_study(STUDY)
    training = study.training.model_copy(update={"epochs": given.epochs})
    prepared = prepare(study.model_copy(update={"training": training}))
    context = make_context(prepared.problem, prepared.bases, prepared.batches)
    assert prepared.options is not None
    for share in given.macs:
        layers = rs.allocate(prepared.options, macs=share).point.layers
        for price in given.prices:
            print(f"macs {share:g}, entropy {price:g}:", row(context, Point(layers, {"entropy": price})), flush=True)


if __name__ == "__main__":
    main()

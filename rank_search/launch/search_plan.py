"""What a driver is to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rank_search.artifacts import ArtifactStore
from rank_search.point import Bound, Outcome, Point
from rank_search.search import Rungs

Judge = Callable[[Point], Outcome | None]
"""The outcome of a point that need not be trained, None for one that must be."""


@dataclass(frozen=True)
class SearchPlan:
    """What a driver is to do.

    Attributes:
        target: finished trials to reach in all, by whomever.
        rungs: the budgets that a trial is measured at, in epochs; the last is the full one.
        rng_seed: of the study.
        constraints: bounds that a complete trial must keep to count as feasible.
        judge: says which points are infeasible before training.
        max_retries: how often a trial is tried again after its driver or its worker died in it.
        artifacts: where the study's files are.
        patience: seconds to wait for room in there.
        max_failures: how many trials in a row may fail; 0: any number.
        made_from: stands for what the study is made from and its software; a checkpoint of another one is of no use.
        checkpoint_seconds: how often a training keeps a checkpoint on its way; 0: never.
    """

    target: int
    rungs: Rungs
    rng_seed: int
    constraints: tuple[Bound, ...]
    judge: Judge
    max_retries: int
    artifacts: ArtifactStore
    patience: float = 0.0
    max_failures: int = 0
    made_from: str = ""
    checkpoint_seconds: float = 0.0

"""TensorBoard's logs of every trial, written by Ray Tune's own logger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from ray import tune

from rank_search.observe.callbacks import TrialCallback
from rank_search.observe.search_progress import SearchProgress
from rank_search.point import Point, State
from rank_search.store import TrialRow


@final
class TensorBoard(TrialCallback):
    """One run of TensorBoard a trial, and one for each rung at which it stopped on the way: choices as
    hyperparameters, measurements at the budget in epochs.
    """

    def __init__(self, folder: Path) -> None:
        tuned: Any = tune  # not annotated
        self._folder, self._logger = folder, tuned.logger.TBXLoggerCallback()

    def recorded(self, row: TrialRow) -> None:
        rung = f"-at-{row.budget:g}" if row.state is State.STOPPED else ""
        shown = _Shown(self._folder / f"trial-{row.number:05}{rung}", row.model_point)
        seconds = (row.finished - row.started).total_seconds()
        result = {**row.measurements, "seconds": seconds, "training_iteration": max(1, round(row.budget))}
        self._logger.on_trial_result(iteration=row.number, trials=[shown], trial=shown, result=result)
        self._logger.on_trial_complete(iteration=row.number, trials=[shown], trial=shown)

    def progressed(self, progress: SearchProgress) -> None:
        return

    def close(self) -> None:
        return


@final
class _Shown:
    """What Tune's logger asks of a trial."""

    def __init__(self, folder: Path, point: Point) -> None:
        self.local_path = str(folder)
        self.evaluated_params = _choices(point)

    def init_local_path(self) -> None:
        Path(self.local_path).mkdir(parents=True, exist_ok=True)


def _choices(point: Point) -> Mapping[str, str | float]:
    chosen: dict[str, str | float] = {}
    for layer, choice in point.layers.items():
        chosen[layer] = choice.factorization
        chosen |= {f"{layer}.{axis}": value for axis, value in choice.values.items()}
    return chosen | dict(point.penalties)

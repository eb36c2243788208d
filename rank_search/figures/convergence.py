"""How the front of a study grew: its hypervolume after so many trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rank_search.pareto import hypervolume, nondominated
from rank_search.point import State
from rank_search.store import StudyRecord, TrialRow

_MOMENTS: Final = 200


@dataclass(frozen=True)
class LossBox:
    """What a hypervolume is a share of: the best and the worst corner, as losses by objective."""

    ideal: Mapping[str, float]
    reference: Mapping[str, float]

    @classmethod
    def of(cls, studies: Sequence[StudyRecord]) -> LossBox:
        """The smallest box that holds those of all these studies of the same objectives."""
        names = studies[0].objective_names
        return cls(
            {name: min(study.ideal[name] for study in studies) for name in names},
            {name: max(study.reference_point[name] for study in studies) for name in names},
        )


@dataclass(frozen=True)
class Trajectory:
    """The hypervolume after so many finished trials, at up to 200 moments of a study.

    Attributes:
        trials: how many had finished.
        seconds: since the first one began.
        hypervolumes: of the front there was then, as a share of the box.
        members: how many trials are on the front at the end.
    """

    trials: tuple[int, ...]
    seconds: tuple[float, ...]
    hypervolumes: tuple[float, ...]
    members: int = 0

    def after(self, trials: int) -> float:
        """The hypervolume at the last moment with at most so many trials; 0 before the first."""
        found = [value for count, value in zip(self.trials, self.hypervolumes, strict=True) if count <= trials]
        return found[-1] if found else 0.0


def progress_of(study: StudyRecord, rows: Sequence[TrialRow], box: LossBox | None = None) -> Trajectory:
    """How the hypervolume of a study grew over its finished trials, in the order in which they were recorded.

    Only complete trials at the full budget count towards the front; every finished one counts as a trial.
    O(moments · n log n) for two objectives.

    Args:
        box: what it is a share of; by default the study's own.
    """
    box, names = box or LossBox.of([study]), study.objective_names
    ideal, reference = ([corner[name] for name in names] for corner in (box.ideal, box.reference))
    front: list[list[float]] = []
    trials, seconds, values = [], [], []
    moments = _moments(len(rows))
    for count, row in enumerate(rows, start=1):
        if row.state is State.COMPLETE and row.budget >= study.budget:
            front.append([row.losses[name] for name in names])
        if count in moments:
            front = [losses for losses, kept in zip(front, nondominated(front), strict=True) if kept]
            trials.append(count)
            seconds.append((row.finished - rows[0].started).total_seconds())
            values.append(hypervolume(front, reference, ideal))
    return Trajectory(tuple(trials), tuple(seconds), tuple(values), len(front))


def _moments(count: int) -> set[int]:
    """Every trial at first, then evenly spread ones, and the last."""
    if count <= _MOMENTS:
        return set(range(1, count + 1))
    return {1 + round(place * (count - 1) / (_MOMENTS - 1)) for place in range(_MOMENTS)}

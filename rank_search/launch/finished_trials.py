"""What a driver knows of a study's finished trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rank_search.pareto import dominates
from rank_search.point import Artifact, State
from rank_search.store import StudyRecord, TrialRow

CHECKPOINT: Final = "checkpoint"


class FinishedTrials:
    """What a driver has learned of a study's finished trials, row by row."""

    def __init__(self, study: StudyRecord) -> None:
        self._study = study
        self._states: dict[int, State] = {}
        self._checkpoints: dict[int, Artifact] = {}
        self._front: list[TrialRow] = []
        self.last_id = 0

    @property
    def numbers(self) -> set[int]:
        """Of the trials that have finished, be it at a rung; cuts of their models are none."""
        return set(self._states)

    @property
    def finished(self) -> int:
        """How many trials have finished."""
        return len(self._states)

    @property
    def states(self) -> dict[State, int]:
        """Finished trials by state."""
        return dict(Counter(self._states.values()))

    @property
    def front(self) -> tuple[TrialRow, ...]:
        """The members of the front, by their losses."""
        return tuple(self._front)

    def checkpoint(self, number: int) -> Artifact | None:
        """Where a stopped trial can go on from."""
        return self._checkpoints.get(number)

    def losses(self, row: TrialRow) -> tuple[float, ...]:
        return tuple(row.losses[name] for name in self._study.objective_names)

    def learn(self, rows: Sequence[TrialRow]) -> list[TrialRow]:
        """Take in newly recorded trials; returns those whose files are needed no longer.

        The store has judged them already; this repeats it for those that a newcomer pushes off the front, instead
        of reading the whole front after every trial.
        """
        for row in rows:
            self.last_id = max(self.last_id, row.id)
            if row.cut_of is None:
                self._states[row.number] = row.state
            self._keep_checkpoint(row)
        newcomers = [row for row in rows if self._is_member(row)]
        beaten = {
            member.number
            for member in self._front
            for newcomer in newcomers
            if dominates(self.losses(newcomer), self.losses(member))
        }
        gone = [row for row in (*rows, *self._front) if row.number in beaten or not self._is_needed(row)]
        stay = [member for member in self._front if member.number not in beaten]
        self._front = sorted([*stay, *newcomers], key=self.losses)
        return [row for row in gone if row.artifacts]

    def _keep_checkpoint(self, row: TrialRow) -> None:
        self._checkpoints.pop(row.number, None)
        found = next((each for each in row.artifacts if each.kind == CHECKPOINT), None)
        if row.state is State.STOPPED and found is not None:
            self._checkpoints[row.number] = found

    def _is_needed(self, row: TrialRow) -> bool:
        return row.state is State.STOPPED or self._is_member(row)

    def _is_member(self, row: TrialRow) -> bool:
        return row.state is State.COMPLETE and row.budget == self._study.budget and row.dominated_by is None

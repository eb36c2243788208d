"""What a driver knows of its study, kept up to date with the store and passed on to whoever decides what comes next."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, final

from rank_search.errors import ArtifactError
from rank_search.launch.finished_trials import FinishedTrials
from rank_search.launch.search_plan import SearchPlan
from rank_search.point import Artifact, Outcome, State
from rank_search.search import SearchTrial, Source
from rank_search.store import Store, StudyRecord, TrialRow

TRAINED_THERE: Final = 0.1
"""Of the full budget, as far as whoever learns from a cut is told: its model was trained at larger values."""


@final
class StudyFeed:
    """Reads what is new in the store; tells the source of points and the rungs, and drops files of no use.

    Attributes:
        known: the finished trials.
        elsewhere: trials that other drivers had in flight when this one last looked, and have not finished since.
        undeleted: names of files of no use that could not be deleted.
    """

    def __init__(self, store: Store, study: StudyRecord, source: Source, plan: SearchPlan) -> None:
        self._store, self._study, self._source, self._plan = store, study, source, plan
        self.known = FinishedTrials(study)
        self.elsewhere: set[int] = set()
        self.undeleted: set[str] = set()

    def catch_up(self) -> list[TrialRow]:
        """Learn of every trial that was recorded since the last time, by this driver or another; returns them."""
        rows = self._store.trials(self._study, after=self.known.last_id)
        self.elsewhere -= {row.number for row in rows}
        self._source.feed(self._trial_of(row) for row in rows)
        for row in rows:
            if row.cut_of is None:
                self._note(row)
        for row in self.known.learn(rows):
            self.drop(self._store.forget_artifacts(self._study, row.number))
        return rows

    def learn_claims(self, held: Collection[int]) -> None:
        """Learn which trials others have in flight; `held`: the numbers of this driver's."""
        claims = self._store.claims(self._study)
        self.elsewhere = {each.number for each in claims}.difference(held)
        self._source.feed(SearchTrial(each.number, each.point, each.sampler) for each in claims)

    def drop(self, artifacts: Sequence[Artifact]) -> None:
        """Delete files that no trial needs any longer; what cannot be deleted now is `undeleted`."""
        for artifact in artifacts:
            try:
                self._plan.artifacts.discard(artifact.location)
            except ArtifactError:
                self.undeleted.add(artifact.location)

    def drop_cuts(self, outcome: Outcome, rows: Sequence[TrialRow]) -> None:
        """Delete the files of cuts that are not among these rows: their points were there before."""
        taken = {each.location for row in rows for each in row.artifacts}
        files = [each for cut in outcome.row for each in cut.outcome.artifacts if each.location not in taken]
        if files:
            kept = self._store.kept_among(self._study, [each.location for each in files])
            self.drop([each for each in files if each.location not in kept])

    def _trial_of(self, row: TrialRow) -> SearchTrial:
        outcome = Outcome(row.state, row.measurements, row.reason, row.artifacts, row.settled, row.settled_costs)
        if row.cut_of is not None:
            return SearchTrial(row.number, row.point, row.sampler, outcome, TRAINED_THERE, is_cut=True)
        share = min(1.0, row.budget / self._study.budget) if self._study.budget else 1.0
        return SearchTrial(row.number, row.point, row.sampler, outcome, share)

    def _note(self, row: TrialRow) -> None:
        """Tell the rungs how a trial did at each budget; one that was refused before training was at none."""
        rungs = self._plan.rungs
        for budget, measured in row.earlier.items():
            rungs.note(row.number, budget, list(self._study.losses(measured).values()))
        if row.state in (State.COMPLETE, State.STOPPED):
            rungs.note(row.number, row.budget, list(row.losses.values()))
        elif row.state is not State.INFEASIBLE or row.budget == rungs.budgets[-1]:
            rungs.note(row.number, row.budget, None)

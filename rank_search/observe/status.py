"""How a study is going, from what its store says: whoever runs it, wherever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Final

from rank_search.artifacts import artifacts_at, recoveries_of
from rank_search.errors import ArtifactError
from rank_search.store import NEVER, Activity, Claim, Store, StudyRecord, artifact_folder, hypervolume_of

SILENT: Final = timedelta(seconds=90)
"""A driver that has not been heard of for so long is dead or cut off; others take its claims over."""

_BRIEFEST: Final = timedelta(seconds=1)


@dataclass(frozen=True)
class DriverStatus:
    """A driver that has trials in flight; `heartbeat`: when it was last heard of."""

    name: str
    in_flight: int
    heartbeat: datetime
    alive: bool


@dataclass(frozen=True)
class Status:
    """A study at one moment.

    Attributes:
        moment: when the store was asked, by its database's clock.
        period: the rates are over the time from there back, of a complete study from its last trial back; no longer
            than the study is old.
        on_front, hypervolume: of the current front.
        goes_on_from: the epoch of the newest checkpoint of each trial in flight that has one, by number: from there it
            goes on if its process dies.
    """

    study: StudyRecord
    moment: datetime
    period: timedelta
    activity: Activity
    on_front: int
    hypervolume: float
    goes_on_from: Mapping[int, float] = field(default_factory=dict)

    @property
    def finished(self) -> int:
        """Trials that have finished."""
        return sum(self.activity.trials.values())

    @property
    def rate(self) -> float:
        """Trials a minute, by all drivers."""
        return self._a_minute(self.activity.finished)

    @property
    def rates(self) -> Mapping[str, float]:
        """Trials a minute, by worker."""
        return {worker: self._a_minute(count) for worker, count in sorted(self.activity.by_worker.items())}

    @property
    def seconds_left(self) -> float | None:
        """Until the target is reached at this rate; `None` if there is no rate or no target."""
        missing = None if self.study.target is None else max(0, self.study.target - self.finished)
        if missing is None or (missing and not self.rate):
            return None
        return 60 * missing / self.rate if missing else 0.0

    @property
    def complete(self) -> bool:
        """Whether the target is reached, and nothing in flight."""
        return self.seconds_left == 0 and not self.activity.claims

    @property
    def given_up(self) -> Sequence[Claim]:
        """Trials whose driver gave them up when it ended: the next driver takes them over."""
        return [claim for claim in self.activity.claims if not claim.worker]

    @property
    def drivers(self) -> Sequence[DriverStatus]:
        """The drivers that hold claims, by name."""
        held = sorted((claim for claim in self.activity.claims if claim.worker), key=attrgetter("worker"))
        return [self._driver(name, list(claims)) for name, claims in groupby(held, attrgetter("worker"))]

    def seconds_since(self, moment: datetime | None) -> float | None:
        """From then to when the store was asked, both by the database's clock, which may have been set back."""
        if moment is None or moment == NEVER:
            return None
        return max(0.0, (self.moment - moment).total_seconds())

    def _driver(self, name: str, claims: Sequence[Claim]) -> DriverStatus:
        heartbeat = max(claim.heartbeat for claim in claims)
        return DriverStatus(name, len(claims), heartbeat, alive=self.moment - heartbeat <= SILENT)

    def _a_minute(self, count: int) -> float:
        return count / (self.period / timedelta(minutes=1))


def status_of(store: Store, name: str, period: timedelta) -> Status:
    """The study as it is now, with rates over the last `period`; of a complete one, over its own last.

    Raises:
        QueryError: there is no such study.
        StoreAwayError: the store does not answer just now.
    """
    study, moment = store.study(name), store.now()
    front = store.front(study)
    share = hypervolume_of(study, front)
    covered, activity = _recent(store, study, moment, period)
    found = Status(study, moment, covered, activity, len(front), share, _kept(store, study, activity.claims))
    last = found.activity.last_finished
    if not found.complete or last is None:
        return found
    covered, activity = _recent(store, study, last, period)
    return replace(found, period=covered, activity=activity)


def _kept(store: Store, study: StudyRecord, claims: Sequence[Claim]) -> dict[int, float]:
    """After how many epochs each trial in flight has left its newest checkpoint; nothing where that cannot be seen."""
    if not claims:
        return {}
    artifacts = artifacts_at(study.artifacts, artifact_folder(store.location, study.folder))
    try:
        left = recoveries_of(artifacts, [claim.point.key for claim in claims])
    except ArtifactError:
        return {}
    epochs = {claim.number: [each.epochs for each in left if each.is_of(claim.point.key)] for claim in claims}
    return {number: max(each) for number, each in epochs.items() if each}


def _recent(store: Store, study: StudyRecord, until: datetime, period: timedelta) -> tuple[timedelta, Activity]:
    """The last `period` before a moment, or as much of it as the study is old, and what finished since."""
    covered = min(period, max(_BRIEFEST, until - study.created))
    return covered, store.activity(study, until - covered)

"""What a trial goes on from when its process has died: the newest checkpoint that it left on its way."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from typing import Final, final

from rank_search.artifacts import Recoveries, Recovery
from rank_search.errors import ArtifactError
from rank_search.launch.executors import Finished, Job
from rank_search.launch.search_plan import SearchPlan
from rank_search.point import Artifact

_BETWEEN_TRIES: Final = 1.0


@final
class Recovering:
    """Finds the checkpoints that trials left on their way, and removes them when the trials have ended."""

    def __init__(self, plan: SearchPlan) -> None:
        self._plan = plan

    def keeping(self, job: Job) -> Job:
        """The job, told how often it keeps checkpoints, and their mark; unchanged if there is nothing to train.

        Where the plan has none it keeps none, and yet goes on from one that was left before.
        """
        if not job.budget:
            return job
        about = [self._plan.made_from, job.point.key, job.rng_seed]
        mark = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
        return replace(job, mark=mark, checkpoint_seconds=self._plan.checkpoint_seconds)

    def gone_on(self, job: Job) -> Job:
        """The job of a trial that was in flight before, with the newest checkpoint of its own if it has left one.

        Raises:
            ArtifactError: the checkpoints could not be read for as long as the plan has patience.
        """
        found = self._newest(job) if job.mark else None
        return job if found is None else replace(job, checkpoint=found[1], spared=found[0].attempt)

    def forget(self, job: Job) -> None:
        """Remove the checkpoints that the trial has left up to the job's budget.

        Raises:
            ArtifactError: they cannot be removed.
        """
        self._of(job).drop(job.budget)

    def may_have_left(self, finished: Finished) -> bool:
        """Whether a job that has ended may have left checkpoints on its way: else nobody need look."""
        job, seconds = finished.job, (finished.finished - finished.started).total_seconds()
        had_time = job.checkpoint_seconds > 0 and (seconds >= job.checkpoint_seconds or job.attempt > 1)
        return had_time or way_point(job) is not None

    def _newest(self, job: Job) -> tuple[Recovery, Artifact] | None:
        deadline = time.monotonic() + self._plan.patience
        while True:
            try:
                return self._of(job).newest(job.budget)
            except ArtifactError:  # out of reach; or a worker that was taken for dead has just replaced it
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_BETWEEN_TRIES)

    def _of(self, job: Job) -> Recoveries:
        return Recoveries(self._plan.artifacts, job.point.key, job.mark)


def way_point(job: Job) -> Recovery | None:
    """The checkpoint on its way that a job goes on from; None if it goes on from none, or from that of a rung."""
    return None if job.checkpoint is None else Recovery.named(job.checkpoint.location)

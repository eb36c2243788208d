"""Workers that are actors on a Ray cluster. What they send back comes through Ray's own channel."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Generic, final

import ray
from ray.exceptions import RayError, RayTaskError

from rank_search.errors import RankSearchError
from rank_search.launch.executors import Job, Runner, carry_out
from rank_search.launch.pool import MOST_LOST_STARTS, Answer, Pool, Worker
from rank_search.launch.ray_connection import GIB, Cluster, SharedObject, raised, shortened
from rank_search.launch.recipe import Found, Loaded, WorkerRecipe
from rank_search.launch.settings import LaunchSettings

_ray: Any = ray  # its own annotations cover only a part of what is used here


class _Actor:
    """The life of a worker on the cluster."""

    def __init__(self, shared: SharedObject[tuple[WorkerRecipe[Any, Any], Any]]) -> None:
        self._shared = shared

    def prepare(self) -> Answer:
        """Make the runner."""
        self._name = f"{_ray.util.get_node_ip_address()}:{os.getpid()}"
        recipe, found = self._shared.get()
        try:
            recipe.init()
            self._runner: Runner = recipe.runner(recipe.load(0), found)
        except RankSearchError as error:
            return Answer(error=error)
        return Answer(ready=self._name)

    def run(self, job: Job) -> Answer:
        return Answer(finished=carry_out(self._runner, job, self._name))


@final
class _ActorWorker(Worker):
    """An actor, and what it was last asked for, until it has answered."""

    def __init__(self, actor: Any) -> None:
        super().__init__()
        self._actor, self.asked = actor, actor.prepare.remote()

    def give(self, job: Job) -> None:
        self.asked = self._actor.run.options(name=f"trial {job.number}").remote(job)

    def kill(self) -> None:
        with suppress(RayError, ConnectionError):
            _ray.kill(self._actor)

    def clear(self) -> None:
        return

    def answer(self) -> Answer:
        asked, self.asked = self.asked, None
        try:
            answer: Answer = _ray.get(asked)
        except RayError as error:
            if isinstance(error, RayTaskError) and not self.ready:
                raise raised(error) from None
            return Answer(died=shortened(error))
        return answer


@final
class RayActors(Pool[_ActorWorker], Generic[Loaded, Found]):
    """Runs jobs in actors of a Ray cluster.

    Those that the cluster has no room for begin when it has, and so does the successor of one that died, alone or with
    its node. Actors end with the driver.

    Args:
        recipe, found: how each worker comes to its runner, and what the driver has found for it.
        workers: how many.
        launch: what Ray sets aside for each, and the time limit.
    """

    def __init__(
        self,
        cluster: Cluster,
        recipe: WorkerRecipe[Loaded, Found],
        found: Found,
        workers: int,
        launch: LaunchSettings,
    ) -> None:
        self._shared = cluster.share((recipe, found), "the way to make a worker,")
        self._launch = launch
        advice = "Ray's dashboard has their logs; `rank-search run … --on local --workers 1` shows what the task does."
        most = MOST_LOST_STARTS * workers
        super().__init__(workers, launch.time_limit, most, takes_early=False, advice=advice)

    def _start(self, place: int) -> _ActorWorker:
        launch = self._launch
        memory = None if launch.memory_per_trial is None else int(launch.memory_per_trial * GIB)
        actor = (
            _ray.remote(_Actor)
            .options(num_cpus=launch.cpus_per_trial, num_gpus=launch.gpus_per_trial, memory=memory)
            .remote(self._shared)
        )
        return _ActorWorker(actor)

    def _answers(self, seconds: float) -> Iterator[tuple[_ActorWorker, Answer]]:
        by_question = {worker.asked: worker for worker in self._workers if worker.asked is not None}
        if not by_question:
            time.sleep(seconds)
            return
        answered, _ = _ray.wait(list(by_question), num_returns=len(by_question), timeout=0)
        if not answered:
            answered, _ = _ray.wait(list(by_question), num_returns=1, timeout=seconds)
        for question in answered:
            worker = by_question[question]
            yield worker, worker.answer()

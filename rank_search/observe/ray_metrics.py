"""A search as metrics of the Ray cluster that it runs on."""

from __future__ import annotations

from typing import final

from ray.util.metrics import Gauge

from rank_search.observe.callbacks import TrialCallback
from rank_search.observe.search_progress import SearchProgress
from rank_search.point import State
from rank_search.store import TrialRow


@final
class RayMetrics(TrialCallback):
    """The search as metrics of the cluster: Ray's dashboard and Prometheus show them."""

    def __init__(self, study: str) -> None:
        keys = ("study",)
        self._trials = Gauge("rank_search_trials", "Finished trials by state.", tag_keys=(*keys, "state"))
        self._in_flight = Gauge("rank_search_trials_in_flight", "Trials that are running.", tag_keys=keys)
        self._workers = Gauge("rank_search_workers", "Workers that are ready.", tag_keys=keys)
        self._volume = Gauge("rank_search_hypervolume", "Hypervolume of the front, as a share.", tag_keys=keys)
        self._study = study

    def recorded(self, row: TrialRow) -> None:
        return

    def progressed(self, progress: SearchProgress) -> None:
        tags = {"study": self._study}
        for state in State:
            self._trials.set(progress.states.get(state, 0), {**tags, "state": str(state)})
        self._in_flight.set(progress.in_flight, tags)
        self._workers.set(progress.workers, tags)
        self._volume.set(progress.hypervolume, tags)

    def close(self) -> None:
        return

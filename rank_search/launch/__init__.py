"""Where trials run, and the driver that gives them out and records them.

The driver, its progress and the Ray launcher are imported from their own modules: a worker process needs neither
the search nor the store, and Ray only where it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rank_search.launch.callbacks import TrialCallback
    from rank_search.launch.driver import SearchDriver, SearchPlan
    from rank_search.launch.executors import Executor, InProcess, Job, Runner, all_of, this_process
    from rank_search.launch.processes import Processes
    from rank_search.launch.ray_actors import Cluster, RayActors, RayMetrics, SharedObject, ship
    from rank_search.launch.settings import LaunchSettings
    from rank_search.launch.tensorboard import TensorBoard

_HOMES: Final = {
    "Cluster": "ray_actors",
    "SearchDriver": "driver",
    "Executor": "executors",
    "InProcess": "executors",
    "Job": "executors",
    "LaunchSettings": "settings",
    "SearchPlan": "driver",
    "Processes": "processes",
    "RayActors": "ray_actors",
    "RayMetrics": "ray_actors",
    "Runner": "executors",
    "SharedObject": "ray_actors",
    "TensorBoard": "tensorboard",
    "TrialCallback": "callbacks",
    "all_of": "executors",
    "ship": "ray_actors",
    "this_process": "executors",
}

__all__ = [
    "Cluster",
    "Executor",
    "InProcess",
    "Job",
    "LaunchSettings",
    "Processes",
    "RayActors",
    "RayMetrics",
    "Runner",
    "SearchDriver",
    "SearchPlan",
    "SharedObject",
    "TensorBoard",
    "TrialCallback",
    "all_of",
    "ship",
    "this_process",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

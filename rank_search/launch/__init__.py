"""Where trials run, and the driver that gives them out and records them.

The driver, its progress and the Ray launcher are imported from their own modules: a worker process needs neither
the search nor the store, and Ray only where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rank_search.basics import lazy_door

if TYPE_CHECKING:
    from rank_search.launch.driver import SearchDriver
    from rank_search.launch.executors import Executor, InProcess, Job, Runner, all_of, this_process
    from rank_search.launch.processes import Processes
    from rank_search.launch.ray_actors import RayActors
    from rank_search.launch.ray_connection import Cluster, SharedObject, ship
    from rank_search.launch.recipe import WorkerRecipe
    from rank_search.launch.search_plan import SearchPlan
    from rank_search.launch.settings import LaunchSettings

_HOMES: Final = {
    "Cluster": "ray_connection",
    "Executor": "executors",
    "InProcess": "executors",
    "Job": "executors",
    "LaunchSettings": "settings",
    "Processes": "processes",
    "RayActors": "ray_actors",
    "Runner": "executors",
    "SearchDriver": "driver",
    "SearchPlan": "search_plan",
    "SharedObject": "ray_connection",
    "WorkerRecipe": "recipe",
    "all_of": "executors",
    "ship": "ray_connection",
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
    "Runner",
    "SearchDriver",
    "SearchPlan",
    "SharedObject",
    "WorkerRecipe",
    "all_of",
    "ship",
    "this_process",
]

__getattr__ = lazy_door(__name__, _HOMES)

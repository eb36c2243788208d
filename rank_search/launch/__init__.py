"""Where trials run, and the driver that gives them out and records them.

The driver and its progress are imported from their own modules: a worker process needs neither the search nor the
store.
"""

from rank_search.launch.executors import Executor, Finished, InProcess, Job, Processes, Runner, trial_seed
from rank_search.launch.settings import LaunchSettings

__all__ = [
    "Executor",
    "Finished",
    "InProcess",
    "Job",
    "LaunchSettings",
    "Processes",
    "Runner",
    "trial_seed",
]

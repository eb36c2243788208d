"""Where trials run, and the driver that gives them out and records them.

The driver, its progress and the Ray launcher are imported from their own modules: a worker process needs neither
the search nor the store, and Ray only where it is used.
"""

from rank_search.launch.executors import (
    Executor,
    Finished,
    InProcess,
    Job,
    Runner,
    all_of,
    carry_out,
    this_process,
    trial_seed,
)
from rank_search.launch.processes import Processes
from rank_search.launch.settings import LaunchSettings

__all__ = [
    "Executor",
    "Finished",
    "InProcess",
    "Job",
    "LaunchSettings",
    "Processes",
    "Runner",
    "all_of",
    "carry_out",
    "this_process",
    "trial_seed",
]

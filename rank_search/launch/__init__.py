"""Where trials run, and the driver that gives them out and records them."""

from rank_search.launch.driver import Driver, Judge, Plan, died_here, hypervolume_of, outcome_of
from rank_search.launch.executors import Executor, Finished, InProcess, Job, Processes, Runner, trial_seed
from rank_search.launch.progress import Progress
from rank_search.launch.settings import LaunchSettings

__all__ = [
    "Driver",
    "Executor",
    "Finished",
    "InProcess",
    "Job",
    "Judge",
    "LaunchSettings",
    "Plan",
    "Processes",
    "Progress",
    "Runner",
    "died_here",
    "hypervolume_of",
    "outcome_of",
    "trial_seed",
]

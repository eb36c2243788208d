"""The front door: a study file, read and checked, and the task that it names."""

from __future__ import annotations

from rank_search.study.code import is_program, task_code
from rank_search.study.complaints import complaints
from rank_search.study.factory import load_task
from rank_search.study.file import Study, load_study
from rank_search.study.locating import StorePlace, finished_in, store_of
from rank_search.study.paths import beside, relative_part
from rank_search.study.placing import device_of, placed
from rank_search.study.problem import (
    IN_PYTHON,
    Problem,
    cache_folder,
    measured_alone,
    problem_of,
    read_problem,
    study_of,
)
from rank_search.study.without_data import without_data

__all__ = [
    "IN_PYTHON",
    "Problem",
    "StorePlace",
    "Study",
    "beside",
    "cache_folder",
    "complaints",
    "device_of",
    "finished_in",
    "is_program",
    "load_study",
    "load_task",
    "measured_alone",
    "placed",
    "problem_of",
    "read_problem",
    "relative_part",
    "store_of",
    "study_of",
    "task_code",
    "without_data",
]

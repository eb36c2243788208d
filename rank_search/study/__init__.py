"""The front door: a study file, read and checked, and the task that it names."""

from rank_search.study.code import task_code
from rank_search.study.file import Study, StudySettings, TaskSettings, load_study
from rank_search.study.task import load_task

__all__ = ["Study", "StudySettings", "TaskSettings", "load_study", "load_task", "task_code"]

"""Hands a study over to a Ray cluster: its folder is shipped as a job, and the driver runs there.

    job = submit_study("studies/digits.toml", "http://head:8265", store="postgresql://searcher@db/search")
    ending = job.follow(print)

What is handed over can be read by everybody who sees Ray's dashboard, so nothing secret may be in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rank_search.basics import lazy_door

if TYPE_CHECKING:
    from rank_search.submit.job import SubmittedJob, submit_study

_HOMES: Final = {
    "SubmittedJob": "job",
    "submit_study": "job",
}

__all__ = [
    "SubmittedJob",
    "submit_study",
]

__getattr__ = lazy_door(__name__, _HOMES)

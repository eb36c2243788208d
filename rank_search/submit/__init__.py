"""Hands a study over to a Ray cluster: its folder is shipped as a job, and the driver runs there.

    job = submit_study("studies/digits.toml", "http://head:8265", store="postgresql://searcher@db/search")
    ending = job.follow(print)

What is handed over can be read by everybody who sees Ray's dashboard, so nothing secret may be in it.
"""

from rank_search.submit.job import Ending, SubmittedJob, submit_study

__all__ = ["Ending", "SubmittedJob", "submit_study"]

"""Jobs that are no trials of a search: each is carried out once, and tried again if its worker died."""

from __future__ import annotations

import pytest

from rank_search.errors import LaunchError, TaskError
from rank_search.launch import InProcess, Job, all_of
from rank_search.point import Outcome, State
from tests.launch.parts import LastFirst, a_point, complete


def jobs(count: int) -> list[Job]:
    return [Job(number, a_point(number), rng_seed=0, budget=1.0) for number in range(count)]


def answer(job: Job) -> Outcome:
    return complete(error=job.number, macs=1.0)


@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_all_of_carries_each_job_out_once(count: int) -> None:
    executor = LastFirst(answer)
    done = list(all_of(executor, jobs(count), max_retries=0))
    assert sorted(each.job.number for each in done) == list(range(count))
    assert all(each.outcome.measurements["error"] == each.job.number for each in done)
    assert (executor.jobs, executor.closed) == ([], False)


def test_all_of_tries_a_job_again_when_its_worker_dies() -> None:
    def dies_twice(job: Job) -> Outcome:
        if job.number == 1 and job.attempt <= 2:
            raise LaunchError("its worker died")
        return answer(job)

    done = {each.job.number: each.job.attempt for each in all_of(LastFirst(dies_twice), jobs(4), max_retries=2)}
    assert done == {0: 1, 1: 3, 2: 1, 3: 1}
    with pytest.raises(LaunchError, match="its worker died"):
        list(all_of(InProcess(dies_twice), jobs(4), max_retries=1))


def test_all_of_raises_an_error_that_is_not_of_the_worker() -> None:
    tried: list[int] = []

    def raises(job: Job) -> Outcome:
        tried.append(job.number)
        raise TaskError("no test data")

    with pytest.raises(TaskError, match="no test data"):
        list(all_of(InProcess(raises), jobs(3), max_retries=5))
    assert tried == [0]


def test_all_of_gives_a_failed_outcome_back() -> None:
    (done,) = all_of(InProcess(lambda job: Outcome(State.FAILED, reason="too slow")), jobs(1), max_retries=3)
    assert done.outcome.reason == "too slow"

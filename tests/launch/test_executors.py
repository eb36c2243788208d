"""Executors: jobs come back once each, whatever happens to the processes that run them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from rank_search.errors import TrialError
from rank_search.launch import Executor, Finished, InProcess, Job, Processes, Runner, trial_seed
from rank_search.point import Outcome, Point, State


def answer(job: Job) -> Outcome:
    return Outcome(State.COMPLETE, {"number": float(job.number), "attempt": float(job.attempt)})


def make_answer() -> Runner:
    return answer


def die_on_the_first_try(job: Job) -> Outcome:
    if job.number == 1 and job.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer(job)


def make_deadly() -> Runner:
    return die_on_the_first_try


def always_die(job: Job) -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    return answer(job)


def make_always_deadly() -> Runner:
    return always_die


def hang(job: Job) -> Outcome:
    if job.number == 0:
        time.sleep(600)
    return answer(job)


def make_hanging() -> Runner:
    return hang


def die_at_the_start() -> Runner:
    os._exit(3)


def raise_at_the_start() -> Runner:
    raise TrialError("no task here")


def full_disk(job: Job) -> Outcome:
    raise TrialError("no space left")


def make_full_disk() -> Runner:
    return full_disk


def jobs(count: int) -> list[Job]:
    return [Job(number, Point({}), trial_seed(0, number)) for number in range(count)]


def finish(executor: Executor, waiting: list[Job], seconds: float = 120) -> list[Finished]:
    """Everything through the executor, as a driver does it."""
    total, done, deadline = len(waiting), [], time.monotonic() + seconds
    while len(done) < total:
        while waiting and executor.free:
            executor.submit(waiting.pop(0))
        done += executor.collect(1)
        assert time.monotonic() < deadline, "the executor does not give its jobs back"
    return done


def processes(make: Callable[[], Runner], workers: int = 2, retries: int = 1, limit: float | None = None) -> Processes:
    return Processes(make, workers, retries, limit)


def test_in_process() -> None:
    executor = InProcess(answer)
    assert executor.free == 1
    (finished,) = finish(executor, jobs(1))
    assert finished.outcome.measurements["number"] == 0
    assert finished.started <= finished.finished


def test_processes_give_every_job_back_once() -> None:
    executor = processes(make_answer)
    try:
        done = finish(executor, jobs(7))
    finally:
        executor.close()
    assert sorted(each.outcome.measurements["number"] for each in done) == list(range(7))
    assert {each.job.number for each in done} == set(range(7))


def test_a_killed_worker_costs_one_try_of_its_own_job() -> None:
    executor = processes(make_deadly)
    try:
        done = {each.job.number: each.outcome for each in finish(executor, jobs(4))}
    finally:
        executor.close()
    assert done[1].measurements["attempt"] == 2
    assert all(done[number].measurements["attempt"] == 1 for number in (0, 2, 3))


def test_a_job_that_kills_every_worker_is_given_up() -> None:
    executor = processes(make_always_deadly, workers=1)
    try:
        (finished,) = finish(executor, jobs(1))
    finally:
        executor.close()
    assert finished.outcome.state is State.FAILED
    assert "died" in finished.outcome.reason


def test_a_job_past_its_time_limit_is_given_up_and_the_others_go_on() -> None:
    executor = processes(make_hanging, limit=2)
    try:
        done = {each.job.number: each.outcome for each in finish(executor, jobs(3))}
    finally:
        executor.close()
    assert done[0].state is State.FAILED
    assert "time_limit = 2 s" in done[0].reason
    assert done[1].state is done[2].state is State.COMPLETE


@pytest.mark.parametrize(
    ("make", "message"),
    [(die_at_the_start, "code 3"), (raise_at_the_start, "no task here"), (make_full_disk, "no space left")],
)
def test_what_is_no_fault_of_a_trial_is_raised(make: Callable[[], Runner], message: str) -> None:
    executor = processes(make, workers=1)
    try:
        with pytest.raises(TrialError, match=message):
            finish(executor, jobs(1))
    finally:
        executor.close()


def test_workers_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        "import test_executors as t\n"
        "from functools import partial\n"
        f"executor = t.processes(partial(t.make_writer, {str(pids)!r}))\n"
        "for job in t.jobs(2):\n"
        "    executor.submit(job)\n"
        "executor.collect(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    driver = subprocess.Popen([sys.executable, "-c", script], env=environment)
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    driver.kill()
    driver.wait()
    workers = [int(pid) for pid in pids.read_text().split()]
    wait_for(lambda: not any(map(is_alive, workers)))


def make_writer(path: str) -> Runner:
    return partial(write_and_hang, path)


def write_and_hang(path: str, job: Job) -> Outcome:
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(600)
    return answer(job)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True


def test_each_trial_has_its_own_seed() -> None:
    found = {trial_seed(seed, number) for seed in range(3) for number in range(100)}
    assert len(found) == 300
    assert trial_seed(1, 2) == trial_seed(1, 2)

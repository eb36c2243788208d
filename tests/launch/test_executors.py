"""Executors: jobs come back once each, whatever happens to the processes that run them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rank_search.errors import ArtifactError, LaunchError, TrialError
from rank_search.launch import Executor, InProcess, Job, Processes, Runner
from rank_search.launch.executors import Finished, trial_seed
from rank_search.point import State
from tests.launch.conftest import ray_actors
from tests.launch.runners import (
    Logged,
    Raising,
    answer,
    die_at_the_start,
    full_disk,
    jobs,
    make_always_deadly,
    make_answer,
    make_deadly,
    make_full_disk,
    make_hanging,
    make_slow,
    make_stuck,
    processes,
    raise_at_the_start,
)


def finish(executor: Executor, waiting: list[Job], retries: int = 1, seconds: float = 120) -> list[Finished]:
    """Everything through the executor, as a driver does it."""
    total, done, deadline = len(waiting), [], time.monotonic() + seconds
    while len(done) < total:
        while waiting and executor.free:
            executor.submit(waiting.pop(0))
        for each in executor.collect(1):
            if each.trouble and not isinstance(each.trouble, LaunchError):
                raise each.trouble
            if each.trouble and each.job.attempt <= retries:
                waiting.append(replace(each.job, attempt=each.job.attempt + 1))
            else:
                done.append(each)
        assert time.monotonic() < deadline, "the executor does not give its jobs back"
    return done


Make = Callable[..., Executor]


@pytest.fixture(params=["processes", "ray"])
def executor(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes an executor of either kind; it is closed after the test."""
    made: list[Executor] = []

    def make(runner: Callable[[], Runner], workers: int = 2, limit: float | None = None) -> Executor:
        if request.param == "processes":
            made.append(processes(runner, workers, limit))
        else:
            cluster = request.getfixturevalue("cluster")
            made.append(ray_actors(cluster, runner, workers, limit))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_the_in_process_executor_runs_a_job_when_it_is_collected() -> None:
    executor = InProcess(answer)
    assert executor.free == executor.workers == 1
    (finished,) = finish(executor, jobs(1))
    assert finished.outcome.measurements["number"] == 0
    assert finished.started <= finished.finished
    assert finished.worker.endswith(f":{os.getpid()}")
    assert InProcess(full_disk).collect(0) == []


def test_the_in_process_executor_gives_trouble_back_with_the_job() -> None:
    executor = InProcess(full_disk)
    executor.submit(jobs(1)[0])
    (finished,) = executor.collect(0)
    assert isinstance(finished.trouble, ArtifactError)
    assert finished.outcome.state is State.FAILED


def test_every_job_is_given_back_once(executor: Make) -> None:
    made = executor(make_answer)
    done = finish(made, jobs(7))
    assert sorted(each.outcome.measurements["number"] for each in done) == list(range(7))
    assert {each.job.number for each in done} == set(range(7))
    assert 1 <= made.workers <= 2


def test_workers_stay_warm(executor: Make) -> None:
    done = finish(executor(make_answer, workers=1), jobs(5))
    assert len({each.worker for each in done}) == 1


def test_a_killed_worker_costs_one_try_of_its_own_job(executor: Make) -> None:
    done = {each.job.number: each for each in finish(executor(make_deadly), jobs(4))}
    assert done[1].outcome.measurements["attempt"] == 2
    assert all(done[number].outcome.measurements["attempt"] == 1 for number in (0, 2, 3))


def test_a_job_that_kills_every_worker_comes_back_with_the_trouble(executor: Make) -> None:
    (finished,) = finish(executor(make_always_deadly, workers=1), jobs(1))
    assert finished.outcome.state is State.FAILED
    assert finished.job.attempt == 2
    assert "died" in finished.outcome.reason
    assert isinstance(finished.trouble, LaunchError)


def test_a_job_past_its_time_limit_is_given_up_and_the_others_go_on(executor: Make) -> None:
    done = {each.job.number: each for each in finish(executor(make_hanging, limit=2), jobs(3))}
    assert done[0].outcome.state is State.FAILED
    assert done[0].trouble is None
    assert "time_limit = 2 s" in done[0].outcome.reason
    assert done[1].outcome.state is done[2].outcome.state is State.COMPLETE


def test_a_job_that_hangs_with_the_interpreter_held_is_given_up(executor: Make) -> None:
    done = {each.job.number: each for each in finish(executor(make_stuck, limit=2), jobs(2))}
    assert "time_limit = 2 s" in done[0].outcome.reason
    assert done[1].outcome.state is State.COMPLETE


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (die_at_the_start, LaunchError, "in a row ended before their first trial"),
        (raise_at_the_start, TrialError, "no task here"),
        (make_full_disk, ArtifactError, "no space left"),
    ],
)
def test_an_executor_raises_what_keeps_every_worker_from_starting(
    executor: Make, make: Callable[[], Runner], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        finish(executor(make, workers=1), jobs(1))


def lines(folder: Path) -> list[list[str]]:
    return [each.read_text().split() for each in folder.iterdir()]


def test_a_worker_goes_step_by_step_as_the_driver_finds_them(tmp_path: Path) -> None:
    executor = Processes(Logged(str(tmp_path / "log")), 2, None)
    try:
        wait_for(lambda: lines(tmp_path) == [["init"], ["init"]])
        assert executor.workers == 0
        executor.load()
        loaded = [["init", "load-0"], ["init", "load-1"]]
        wait_for(lambda: sorted(lines(tmp_path)) == loaded or bool(executor.collect(0)))
        executor.serve("found")
        done = {each.job.number: each for each in finish(executor, jobs(6))}
        assert sorted(done) == list(range(6))
        assert done[1].outcome.measurements["attempt"] == 2, "its worker died"
        first, second = (["init", f"load-{place}", "found"] for place in (0, 1))
        ended = [first, first, second], [first, second, second]  # its successor's, too, which takes its place
        wait_for(lambda: not executor.collect(0) and sorted(lines(tmp_path)) in ended)
    finally:
        executor.close()


def test_a_worker_that_is_busy_loads_by_itself_afterwards(tmp_path: Path) -> None:
    executor = Processes(Logged(str(tmp_path / "log")), 2, None)
    try:
        executor.load()
        assert lines(tmp_path) == [], "they have not even begun"
        wait_for(lambda: sorted(lines(tmp_path)) == [["init", "load-0"], ["init", "load-1"]])
        done = finish(executor.serve("found"), jobs(4))
        assert sorted(each.job.number for each in done) == list(range(4))
    finally:
        executor.close()


@pytest.mark.parametrize("step", ["init", "load", "runner"])
def test_a_step_that_raises_ends_the_search(step: str) -> None:
    executor = Processes(Raising(step), 1, None)
    try:
        with pytest.raises(TrialError, match="no task here"):
            finish(executor.load().serve(None), jobs(1))
    finally:
        executor.close()


def test_each_of_many_workers_is_used(executor: Make) -> None:
    done = finish(executor(make_slow, workers=3), jobs(6))
    assert len({each.worker for each in done}) == 3


def test_workers_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        "import runners\n"
        "from functools import partial\n"
        f"executor = runners.processes(partial(runners.make_writer, {str(pids)!r}))\n"
        "for job in runners.jobs(2):\n"
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


def test_each_trial_has_its_own_rng_seed() -> None:
    found = {trial_seed(seed, number) for seed in range(3) for number in range(100)}
    assert len(found) == 300
    assert trial_seed(1, 2) == trial_seed(1, 2)

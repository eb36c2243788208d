"""The Ray launcher: a connection to a cluster, and actors on it that outlive one trial and not the driver.

Only this module knows Ray. Whatever a worker sends back comes through Ray's own channel.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import PicklingError
from typing import Any, Final, Generic, Self, TypeVar, final

import ray
from ray.exceptions import RayError, RayTaskError

from rank_search.errors import LaunchError, RankSearchError
from rank_search.launch.callbacks import TrialCallback
from rank_search.launch.executors import Executor, Finished, Job, Runner, carry_out, cut_short
from rank_search.launch.processes import MOST_LOST_STARTS
from rank_search.launch.settings import LaunchSettings
from rank_search.observe import SearchProgress, logs
from rank_search.point import Outcome, State

T = TypeVar("T")
_ray: Any = ray  # its own annotations cover only a part of what is used here
_GIB: Final = 2**30
_INSTALLED: Final = ("rank_search", "rank_search_plugins")  # on every node, even if they run from their sources here


@dataclass(frozen=True)
class SharedObject(Generic[T]):
    """A value in Ray's object store: it travels to each node at most once, when somebody there asks for it."""

    reference: Any

    def get(self) -> T:
        """The value; NumPy arrays in it are read-only views of the node's shared memory."""
        value: T = _ray.get(self.reference)
        return value


@final
class Cluster:
    """A connection to a Ray cluster, closed when the block is left; one that was there before is left open."""

    def __init__(self, address: str = "") -> None:
        self._ours = not _ray.is_initialized()
        if self._ours:
            _connect(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._ours:
            _ray.shutdown()

    def share(self, value: T, what: str) -> SharedObject[T]:
        """Put a value into the object store.

        Raises:
            LaunchError: it cannot be pickled.
        """
        with _pickling(what):
            return SharedObject(_ray.put(value))

    def spread(self, function: Callable[..., tuple[Any, Any]], calls: Iterable[Sequence[Any]]) -> list[tuple[Any, Any]]:
        """Call the function on the cluster, once for each list of arguments, as many at a time as there are CPUs.

        It returns a small thing, which is fetched, and a large one, which stays on the cluster as a `SharedObject`.
        """
        task = _ray.remote(num_cpus=1, num_returns=2, name=f"rank-search {function.__name__}")(function)
        with _pickling("a layer's factorizations"):
            pairs = [task.remote(*arguments) for arguments in calls]
        try:
            small = _ray.get([first for first, _ in pairs])
        except RayTaskError as error:
            raise _raised(error) from None
        return [(found, SharedObject(large)) for found, (_, large) in zip(small, pairs, strict=True)]

    def room(self, launch: LaunchSettings) -> int:
        """How many workers the cluster has room for as it is now.

        Raises:
            LaunchError: not one.
        """
        there = _ray.cluster_resources()
        wanted = {
            "CPU": launch.cpus_per_trial,
            "GPU": launch.gpus_per_trial,
            "memory": (launch.memory_per_trial or 0.0) * _GIB,
        }
        room = min(int(there.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items() if amount)
        if room < 1:
            raise LaunchError(
                f"A worker needs {_amounts(wanted)} on one node; the cluster has {_amounts(there)} in all. Lower "
                "cpus_per_trial, gpus_per_trial or memory_per_trial in [launch], or add a node."
            )
        return room


def _connect(address: str) -> None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of its own default
    try:
        with _still_heeding_sigterm():
            _ray.init(address=address or None, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, RayError) as error:
        said = " ".join(str(error).split())[:300]
        raise LaunchError(
            f"A search on Ray needs a cluster that answers; {address or 'the default address'} does not: {said} "
            "Check the address, the token (RAY_AUTH_TOKEN) and that `ray start --head` runs there (docs/cluster.md)."
        ) from None


@contextmanager
def _still_heeding_sigterm() -> Iterator[None]:
    """Ray takes this signal for itself when it connects; whoever minded it before goes on doing so."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _pickling(what: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, AttributeError, PicklingError) as error:
        raise LaunchError(
            f"What workers share is sent to them, so it can be pickled; {what} cannot: {str(error).splitlines()[0]}. "
            "Open files, locks and connections where they are used (for a task in training(), selection(), test())."
        ) from None


def _raised(error: RayTaskError) -> RankSearchError:
    """What went wrong on a worker, as an error of ours."""
    if isinstance(error.cause, RankSearchError):
        return error.cause
    return LaunchError(
        f"Workers have every package that the study needs, as the driver has; one says {_short(error)}. "
        "Install what is missing on every node (docs/cluster.md)."
    )


def _amounts(resources: Any) -> str:
    units = {"CPU": 1.0, "GPU": 1.0, "memory": float(_GIB)}
    named = {"memory": "GiB of memory"}
    found = (f"{resources.get(name, 0.0) / unit:g} {named.get(name, name)}" for name, unit in units.items())
    return ", ".join(found)


@final
class RayMetrics(TrialCallback):
    """The search as metrics of the cluster: Ray's dashboard and Prometheus show them."""

    def __init__(self, study: str) -> None:
        from ray.util.metrics import Gauge

        keys = ("study",)
        self._trials = Gauge("rank_search_trials", "Finished trials by state.", tag_keys=(*keys, "state"))
        self._in_flight = Gauge("rank_search_trials_in_flight", "Trials that are running.", tag_keys=keys)
        self._workers = Gauge("rank_search_workers", "Workers that are ready.", tag_keys=keys)
        self._volume = Gauge("rank_search_hypervolume", "Hypervolume of the front, as a share.", tag_keys=keys)
        self._study = study

    def recorded(self, finished: Finished, outcome: Outcome) -> None:
        return

    def progressed(self, progress: SearchProgress) -> None:
        tags = {"study": self._study}
        for state in State:
            self._trials.set(progress.states.get(state, 0), {**tags, "state": str(state)})
        self._in_flight.set(progress.in_flight, tags)
        self._workers.set(progress.workers, tags)
        self._volume.set(progress.hypervolume, tags)

    def close(self) -> None:
        return


def ship(folder: Path) -> None:
    """Send the code of modules in this folder along with what is defined in them: no node has to have it."""
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        installed = name.split(".")[0] in _INSTALLED or "site-packages" in file.parts
        if folder in file.parents and not installed:
            _ray.cloudpickle.register_pickle_by_value(module)


# ---- workers ---------------------------------------------------------------------------------------------


class _Actor:
    """The life of a worker on the cluster: the runner is built once and kept warm."""

    def __init__(self, make_runner: SharedObject[Callable[[], Runner]]) -> None:
        self._make_runner = make_runner

    def prepare(self) -> str | RankSearchError:
        """Build the runner; the worker's name, or what is in the way."""
        self._name = f"{_ray.util.get_node_ip_address()}:{os.getpid()}"
        try:
            self._runner = self._make_runner.get()()
        except RankSearchError as error:
            return error
        return self._name

    def run(self, job: Job) -> Finished:
        return carry_out(self._runner, job, self._name)


@dataclass
class _ActorWorker:
    """An actor, what it was last asked for, the job it is busy with, and its name once it is ready."""

    actor: Any
    asked: Any
    job: Job | None = None
    since: float = 0.0
    name: str = ""


@final
class RayActors(Executor):
    """Runs jobs in actors of a Ray cluster, each of which builds its runner once and keeps it warm.

    An actor that dies, alone or with its node, takes its own job with it and nothing else: the job comes back with
    a `LaunchError`, and a fresh actor takes the place as soon as the cluster has room. Actors end with the driver.

    Args:
        make_runner: called once in each worker.
        workers: how many; those that the cluster has no room for begin when it has.
        launch: what Ray sets aside for each, and the time limit.
    """

    def __init__(
        self, cluster: Cluster, make_runner: Callable[[], Runner], workers: int, launch: LaunchSettings
    ) -> None:
        self._make_runner = cluster.share(make_runner, "the way to make a worker")
        self._launch = launch
        self._lost_starts = 0
        self._workers = [self._start() for _ in range(workers)]

    @property
    def workers(self) -> int:
        return sum(bool(worker.name) for worker in self._workers)

    @property
    def free(self) -> int:
        return sum(bool(worker.name) and worker.job is None for worker in self._workers)

    def submit(self, job: Job) -> None:
        worker = next(worker for worker in self._workers if worker.name and worker.job is None)
        worker.job, worker.since = job, time.monotonic()
        worker.asked = worker.actor.run.options(name=f"trial {job.number}").remote(job)

    def collect(self, seconds: float) -> list[Finished]:
        deadline = time.monotonic() + seconds
        while True:
            finished, news = self._collect_once(max(0.0, min(1.0, deadline - time.monotonic())))
            if finished or news or time.monotonic() >= deadline:
                return finished

    def close(self) -> None:
        for worker in self._workers:
            with suppress(RayError, ConnectionError):
                _ray.kill(worker.actor)
        self._workers = []

    def _start(self) -> _ActorWorker:
        launch = self._launch
        memory = None if launch.memory_per_trial is None else int(launch.memory_per_trial * _GIB)
        actor = (
            _ray.remote(_Actor)
            .options(num_cpus=launch.cpus_per_trial, num_gpus=launch.gpus_per_trial, memory=memory)
            .remote(self._make_runner)
        )
        return _ActorWorker(actor, actor.prepare.remote())

    def _collect_once(self, seconds: float) -> tuple[list[Finished], bool]:
        """What has ended, and whether a worker has become ready."""
        by_question = {worker.asked: worker for worker in self._workers if worker.asked is not None}
        if not by_question:
            return [], False
        answered, _ = _ray.wait(list(by_question), num_returns=len(by_question), timeout=0)
        if not answered:
            answered, _ = _ray.wait(list(by_question), num_returns=1, timeout=seconds)
        before = self.workers
        finished = [each for question in answered for each in self._receive(by_question[question])]
        return finished + self._overdue(), self.workers > before

    def _receive(self, worker: _ActorWorker) -> list[Finished]:
        try:
            answer = _ray.get(worker.asked)
        except RayError as error:
            if isinstance(error, RayTaskError) and not worker.name:
                raise _raised(error) from None
            return self._lost(worker, error)
        worker.asked = None
        if isinstance(answer, RankSearchError):
            raise answer
        if isinstance(answer, str):
            worker.name, self._lost_starts = answer, 0
            logs.worker_started(worker.name)
            return []
        worker.job = None
        return [answer]

    def _lost(self, worker: _ActorWorker, error: RayError) -> list[Finished]:
        self._lost_starts += not worker.name
        if self._lost_starts > MOST_LOST_STARTS * len(self._workers):
            raise LaunchError(
                f"{self._lost_starts} workers in a row ended before their first trial, the last with: {_short(error)} "
                "Ray's dashboard has their logs; `rank-search run … --on local --workers 1` shows what the task does."
            )
        died = f"its worker {worker.name} died ({_short(error)})"
        logs.worker_died(worker.name, died)
        self._replace(worker)
        if worker.job is None:
            return []
        return [cut_short(worker.job, worker.since, died, worker.name, LaunchError(died))]

    def _overdue(self) -> list[Finished]:
        limit, now = self._launch.time_limit, time.monotonic()
        if limit is None:
            return []
        overdue = [each for each in self._workers if each.job and now - each.since > limit]
        for worker in overdue:
            _ray.kill(worker.actor)
            self._replace(worker)
        reason = f"it ran past time_limit = {limit:g} s"
        return [cut_short(each.job, each.since, reason, each.name) for each in overdue if each.job is not None]

    def _replace(self, worker: _ActorWorker) -> None:
        self._workers[self._workers.index(worker)] = self._start()


def _short(error: RayError) -> str:
    cause = error.cause if isinstance(error, RayTaskError) else error
    said = " ".join(str(cause).partition("traceback:")[0].split())
    return f"{type(cause).__name__}: {said[:200]}{'…' if len(said) > 200 else ''}"

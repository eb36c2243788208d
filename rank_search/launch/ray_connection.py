"""A connection to a Ray cluster: objects and code that travel there, and what went wrong on it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import PicklingError
from typing import Any, Final, Generic, Self, TypeVar, final

import ray
from ray.exceptions import RayError, RayTaskError

from rank_search.errors import LaunchError, RankSearchError
from rank_search.launch.settings import LaunchSettings

T = TypeVar("T")
_ray: Any = ray  # its own annotations cover only a part of what is used here
GIB: Final = 2**30
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
        with _pickling("a layer's factorizations,"):
            pairs = [task.remote(*arguments) for arguments in calls]
        try:
            small = _ray.get([first for first, _ in pairs])
        except RayTaskError as error:
            raise raised(error) from None
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
            "memory": (launch.memory_per_trial or 0.0) * GIB,
        }
        room = min(int(there.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items() if amount)
        if room < 1:
            raise LaunchError(
                f"The cluster has {_amounts(there)} in all; a worker needs {_amounts(wanted)} on one node. Lower "
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
            f"The Ray cluster at {address or 'the default address'} does not answer: {said} "
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
            f"Cannot pickle {what} which workers share: {str(error).splitlines()[0]}. Open files, locks and "
            "connections where they are used (for a task in training(), selection(), test())."
        ) from None


def raised(error: RayTaskError) -> RankSearchError:
    """What went wrong on a worker, as an error of ours."""
    if isinstance(error.cause, RankSearchError):
        return error.cause
    return LaunchError(
        f"A worker could not start: {shortened(error)}. Workers need every package that the driver has: install what "
        "is missing on every node (docs/cluster.md)."
    )


def _amounts(resources: Any) -> str:
    units = {"CPU": 1.0, "GPU": 1.0, "memory": float(GIB)}
    named = {"memory": "GiB of memory"}
    found = (f"{resources.get(name, 0.0) / unit:g} {named.get(name, name)}" for name, unit in units.items())
    return ", ".join(found)


def ship(folder: Path) -> None:
    """Send the code of modules in this folder along with what is defined in them: no node has to have it."""
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        installed = name.split(".")[0] in _INSTALLED or "site-packages" in file.parts
        if folder in file.parents and not installed:
            _ray.cloudpickle.register_pickle_by_value(module)


def shortened(error: RayError) -> str:
    cause = error.cause if isinstance(error, RayTaskError) else error
    said = " ".join(str(cause).partition("traceback:")[0].split())
    return f"{type(cause).__name__}: {said[:200]}{'…' if len(said) > 200 else ''}"

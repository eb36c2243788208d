"""A study as a job on a Ray cluster: submitted, followed, ended."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from rank_search.errors import LaunchError
from rank_search.study import Study, load_study
from rank_search.submit.folder import files_to_ship, pack
from rank_search.submit.reachable import STORE_VARIABLE, check_places

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_ADDRESS_VARIABLE: Final = "RAY_API_SERVER_ADDRESS"
_ANSWER_SECONDS: Final = 15
_SECONDS_BETWEEN_LOOKS: Final = 0.5
_NOT_FOUND: Final = 127  # of a shell, for a command that is not there
_CHATTY: Final = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)


@dataclass(frozen=True)
class JobEnding:
    """How a job ended: Ray's word for it, the exit code to pass on, and why if the log does not say."""

    status: str
    code: int
    reason: str = ""


@final
class SubmittedJob:
    """A job on a cluster: `id`, and the `address` that it was submitted to."""

    def __init__(self, client: JobSubmissionClient, address: str, id: str) -> None:
        self._client = client
        self.address = address
        self.id = id

    def follow(self, write: Callable[[str], object]) -> JobEnding:
        """Pass on the job's log as it grows, until the job has ended.

        Raises:
            LaunchError: the cluster is out of reach; the job may go on.
        """
        try:
            return asyncio.run(self._follow(write))
        except BrokenPipeError:
            raise
        except Exception as error:
            raise LaunchError(
                f"Ray's dashboard at {self.address} does not answer any more: {_said(error)}. "
                f"The job may still be running. See: {self.command('logs', '--follow')}"
            ) from error

    def command(self, verb: str, *options: str) -> str:
        """The command line of Ray's own about this job: `logs`, `status` or `stop`."""
        return shlex.join(["ray", "job", verb, "--address", self.address, *options, self.id])

    async def _follow(self, write: Callable[[str], object]) -> JobEnding:
        """A connection that breaks is made again, as long as the cluster tells how the job is."""
        shown = 0
        while True:
            async for chunk in self._log(shown):
                write(chunk)
                shown += len(chunk)
            details = self._client.get_job_info(self.id)
            if details.status.is_terminal():
                return _ending(details.status.value, details.driver_exit_code, details.message or "")
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)

    async def _log(self, shown: int) -> AsyncIterator[str]:
        """The log behind the characters that were shown before."""
        try:
            async for chunk in self._client.tail_job_logs(self.id):
                yield chunk[shown:]
                shown = max(0, shown - len(chunk))
        except (OSError, RuntimeError):
            return


def _ending(status: str, code: int | None, message: str) -> JobEnding:
    if status == "SUCCEEDED":
        return JobEnding(status, 0)
    if code is None:
        return JobEnding(status, 1, message)
    hint = "Is rank-search installed on the head node, and was its environment active where `ray start` ran?"
    return JobEnding(status, code if 0 < code < 256 else 1, hint if code == _NOT_FOUND else "")


def submit_study(
    file: str | Path, address: str, *, store: str | None = None, trials: int | None = None, workers: int | None = None
) -> SubmittedJob:
    """Ship the folder of a study file to a cluster, and run the study there.

    Args:
        address: of Ray's dashboard, such as `http://head:8265`.
        store, trials, workers: instead of the study file's. A store must mean the same everywhere: the URL of a
            server, or the absolute path of an SQLite file on the head node. Without any, the job takes the one that
            RANK_SEARCH_STORE names on the head node.

    Raises:
        StudyFileError: the study file is not there, or breaks rules.
        StoreError: the store is neither an SQLite file nor a PostgreSQL database.
        LaunchError: it cannot be handed over, or the cluster cannot be used; the message says what to do.
    """
    study = load_study(file)
    name = Path(file).resolve().name
    check_places(study, store)
    files = files_to_ship(study, name)
    client = _client(address)
    with TemporaryDirectory(prefix="rank-search-") as scratch:
        package = pack(study.folder, files, Path(scratch) / "study.zip")
        command = entrypoint(study, name, store, trials, workers)
        with _blaming(address):
            id = client.submit_job(
                entrypoint=command, runtime_env={"working_dir": str(package)}, metadata={"study": study.name}
            )
    return SubmittedJob(client, address, id)


def entrypoint(study: Study, file: str, store: str | None, trials: int | None, workers: int | None) -> str:
    given = {"--store": store, "--trials": trials, "--workers": workers}
    options = [part for key, value in given.items() if value is not None for part in (key, str(value))]
    command = shlex.join(["rank-search", "run", file, "--on", "ray", "--address", "auto", *options])
    if store or study.study.store:
        return command
    advice = f"is not set where ray start ran on the head node; submit with --store, or set {STORE_VARIABLE} there"
    return f': "${{{STORE_VARIABLE}:?{advice}}}" && {command}'


# ---- the cluster ------------------------------------------------------------------------------------------


def _client(address: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    _check_address(address)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    with _blaming(address), _instead_of_environment(address):
        return JobSubmissionClient(address)


def _check_address(address: str) -> None:
    """It is a URL, and something answers there: Ray itself would wait for minutes."""
    if not _is_of_a_server(address):
        shown = address.rpartition("@")[2]
        raise LaunchError(f"{shown!r} is no address of Ray's dashboard. Give one such as http://HEAD:8265.")
    try:
        with urlopen(f"{address.rstrip('/')}/api/version", timeout=_ANSWER_SECONDS):  # noqa: S310 (checked above)
            pass
    except HTTPError:
        pass  # it answers; what it wants is found out by the client
    except (OSError, ValueError, HTTPException) as error:
        raise LaunchError(
            f"Ray's dashboard does not answer at {address}: {_said(error)}. Is it reachable "
            "from here? `ray start --head --dashboard-host=0.0.0.0` listens to other machines; a tunnel needs no open "
            "port: `ssh -N -L 8265:localhost:8265 HEAD`, and then --address http://localhost:8265."
        ) from error


def _is_of_a_server(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        return False


@contextmanager
def _instead_of_environment(address: str) -> Iterator[None]:
    """Ray prefers an address in the environment to the one it is given."""
    before = os.environ.get(_ADDRESS_VARIABLE)
    os.environ[_ADDRESS_VARIABLE] = address
    try:
        yield
    finally:
        del os.environ[_ADDRESS_VARIABLE]
        if before is not None:
            os.environ[_ADDRESS_VARIABLE] = before


@contextmanager
def _blaming(address: str) -> Iterator[None]:
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise LaunchError(
            f"The cluster at {address} asks for its token: {error.message.splitlines()[0]}. Set "
            "RAY_AUTH_MODE=token here, and give the token in RAY_AUTH_TOKEN, in a file that RAY_AUTH_TOKEN_PATH names, "
            "or in ~/.ray/auth_token. `ray get-auth-token` shows it on the head node."
        ) from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise LaunchError(f"The job could not be submitted to Ray's dashboard at {address}: {_said(error)}.") from error


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__

"""Many runs of the command line at little cost: forks of one process that has imported everything.

Each fork is a process of its own, leads a process group of its own, and can be told to kill itself, by SIGKILL, at
the n-th call of a function. As a script, this file is the process that forks.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self


@dataclass(frozen=True)
class Death:
    """Where a process kills itself: at the n-th call of a built-in function, or of any in files that end so."""

    what: str
    count: int


@dataclass
class Run:
    """A command that was started; `pid` is its process group, too."""

    forks: Forks
    pid: int
    output: Path

    def wait(self) -> int:
        """Its exit code, negative for the signal that ended it."""
        return int(self.forks.ask({"wait": self.pid}))

    def signal_group(self, number: int) -> None:
        os.killpg(self.pid, number)

    @property
    def printed(self) -> str:
        return self.output.read_text(encoding="utf-8")

    @property
    def workers(self) -> list[int]:
        """Its living worker processes."""
        return [pid for pid, command in group(self.pid).items() if pid != self.pid and "spawn_main" in command]


class Forks:
    """The process that forks, and questions to it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def ask(self, question: dict[str, Any]) -> Any:
        print(json.dumps(question), file=self._server.stdin, flush=True)
        return json.loads(self._server.stdout.readline())

    def start(self, *arguments: object, death: Death | None = None, folder: Path | None = None) -> Run:
        """Start `rank-search` with these arguments, in a folder."""
        self._count += 1
        output = self._folder / f"{self._count}.txt"
        question = {
            "start": [str(each) for each in arguments],
            "output": str(output),
            "folder": str(folder or self._folder),
            "death": None if death is None else [death.what, death.count],
        }
        return Run(self, self.ask(question), output)

    def run(self, *arguments: object, death: Death | None = None) -> int:
        """Run it to its end."""
        return self.start(*arguments, death=death).wait()


def group(leader: int) -> dict[int, str]:
    """The command lines of the living processes of a process group."""
    return {pid: command for pid, (leads, command) in processes().items() if leads == leader}


def processes() -> dict[int, tuple[int, str]]:
    """The process group and the command line of each living process."""
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(["ps", "-axo", "pid=,pgid=,stat=,args="], capture_output=True, text=True, check=True)
        rows = [line.split(maxsplit=3) for line in listed.stdout.splitlines()]
        return {int(pid): (int(leads), command) for pid, leads, state, command in rows if state[0] != "Z"}
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            state, _, leads = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if state != "Z":
                found[int(folder.name)] = (int(leads), (folder / "cmdline").read_text().replace("\0", " "))
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.01)


# ---- the process that forks ------------------------------------------------------------------------------


def serve() -> None:
    from rank_search.cli import main
    from rank_search.layers import layer_kinds, load_plugin

    for name in ("rank_search.run.runner", "rank_search.cli.progress", "alembic.config", "torch._dynamo", "moocore"):
        importlib.import_module(name)
    layer_kinds()
    for name in ("svd", "tucker2"):
        load_plugin(name)
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer = os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                become(question, main)
        print(json.dumps(answer), flush=True)


def become(question: dict[str, Any], main: Callable[[], None]) -> None:
    """In the fork: run the command, and end."""
    os.setpgid(0, 0)
    os.chdir(question["folder"])
    output = os.open(question["output"], os.O_CREAT | os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["rank-search", *question["start"]]
    code: object = 0
    try:
        if question["death"] is not None:
            die_at(*question["death"])
        main()
    except SystemExit as ending:
        code = ending.code
    finally:
        sys.setprofile(None)
        sys.settrace(None)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def die_at(what: str, count: int) -> None:
    """Kill this process at that call. Nothing else is watched than calls of that kind: each that is takes time."""
    if what.endswith(".py"):
        sys.settrace(reaper_of_files(what, count))
    else:
        sys.setprofile(reaper_of_built_ins(what, count))


def reaper_of_files(what: str, count: int) -> Callable[[FrameType, str, object], None]:
    left, known = count, dict[CodeType, bool]()

    def trace(frame: FrameType, event: str, argument: object) -> None:  # returns no tracer of the function's lines
        nonlocal left
        code = frame.f_code
        if (hit := known.get(code)) is None:
            hit = known[code] = code.co_filename.endswith(what)
        left -= hit
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return trace


def reaper_of_built_ins(what: str, count: int) -> Callable[[FrameType, str, object], None]:
    left = count

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        if event == "c_call" and getattr(argument, "__name__", "") == what:
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return profile


if __name__ == "__main__":
    serve()

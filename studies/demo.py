"""`make demo`: search, look at the front, export one model, and check the export in a process of its own.

Each step is a command that you can type yourself; it is printed before it runs.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import rank_search as rs

STUDY = Path(__file__).parent / "digits.toml"
COMMAND = Path(sys.executable).parent / "rank-search"


def main(folder: Path) -> None:
    """Run the demonstration, keeping everything in one folder."""
    store, exported = folder / "digits.sqlite", folder / "exported"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(exported, ignore_errors=True)
    show("rank-search", "run", STUDY, "--store", store)
    show("rank-search", "front", store, "digits", "--where", "error <= 0.05", "--sort", "error")
    trial = smallest_within_a_point(store)
    show("rank-search", "show", store, "digits", trial)
    show("rank-search", "export", store, "digits", trial, "-o", exported)
    show("rank-search", "check", store, "digits")
    show("python", Path(__file__).with_name("check_export.py"), exported)


def show(program: str, *arguments: object) -> None:
    """Print a command, run it, and stop with it if it fails."""
    words = [str(argument) for argument in arguments]
    sys.stdout.write(f"\n$ {shlex.join([program, *words])}\n")
    sys.stdout.flush()
    executable = sys.executable if program == "python" else str(COMMAND)
    code = subprocess.run([executable, *words], check=False).returncode
    if code:
        sys.exit(code)


def smallest_within_a_point(path: Path) -> int:
    """The front member of the fewest bits whose selection error is at most a point above the dense model's."""
    with rs.Store.open(path) as store:
        study = store.study("digits")
        bound = rs.Bound.parse(f"error <= {study.dense['error'] + 0.01}")
        return store.front(study, where=[bound], sort="bits", limit=1)[0].number


if __name__ == "__main__":
    main(Path(sys.argv[1]))

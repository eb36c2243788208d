"""`make bounds`: each package at the lowest version that pyproject.toml allows, one at a time beside the pinned others.

A bound that nobody has tried is a guess. Versions that constraints.txt pins are tried by everything else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).parents[1]
PARTNERS = {"pydantic": ("pydantic_core",), "transformers": ("huggingface_hub", "tokenizers")}
"""Packages whose versions follow another's exactly, so that they give way with it."""
EXTRAS = ("demo", "onnx", "postgresql", "s3", "transformers")
PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[\w.]+)")
BOUND = re.compile(r"(?P<name>[\w-]+)(?:\[[\w,]+\])?>=(?P<version>[\w.]+)")


def main(only: list[str]) -> None:
    """Try all bounds, two at a time; ends with those that do not hold."""
    bounds = [(name, version) for name, version in lower_bounds() if name in (only or [name])]
    with ThreadPoolExecutor(2) as pool:
        failed = [said for said in pool.map(lambda bound: tried(*bound), bounds) if said]
    if failed:
        sys.exit("\n".join(failed))
    sys.stdout.write(f"{len(bounds)} passed, 0 failed\n")


def lower_bounds() -> Iterator[tuple[str, str]]:
    """Every package that a user may install, with its lowest version, but for those that are pinned to it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [each for extra in EXTRAS for each in project["optional-dependencies"][extra]]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {(pin["name"].lower(), Version(pin["version"])) for pin in map(PIN.match, pins) if pin}
    for requirement in [*project["dependencies"], *extras]:
        found = BOUND.match(requirement)
        if found is None:
            sys.exit(f"{requirement!r} has no lower bound. Give it the lowest version that works.")
        if (found["name"].lower(), Version(found["version"])) not in pinned:
            yield found["name"], found["version"]


def tried(name: str, version: str) -> str:
    """Why this version does not work; nothing if it does."""
    wanted = f"{name}=={version}"
    with tempfile.TemporaryDirectory() as folder:
        others = Path(folder, "constraints.txt")
        others.write_text("".join(f"{pin}\n" for pin in pins_beside(name)))
        once = "--no-compile"  # it is imported once: only what is needed then, instead of every file
        pip = ("-m", "pip", "--quiet", "install", once, "--target", folder, "--constraint", others, wanted)
        paths = os.pathsep.join((folder, str(ROOT)))
        for words in (pip, (ROOT / ".ci" / "smoke.py", name)):
            environment = {**os.environ, "PYTHONPATH": paths if words is not pip else ""}
            command = [sys.executable, *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                sys.stdout.write(f"{wanted}: does not work\n")
                return f"{wanted} does not work:\n{done.stdout[-1000:]}{done.stderr[-3000:]}"
    sys.stdout.write(f"{wanted}: works\n")
    sys.stdout.flush()
    return ""


def pins_beside(name: str) -> list[str]:
    """The pinned versions of everything else."""
    loose = {name.lower(), *PARTNERS.get(name, ())}
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    return [pin for pin in pins if pin.split("==")[0].lower() not in loose]


if __name__ == "__main__":
    main(sys.argv[1:])

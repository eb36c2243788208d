"""`make wheel`: build sdist and wheel, and use the wheel as a user does, in a fresh venv outside this checkout.

Whatever only works where the source lies fails there: a package or a file left out, an import of the tests' tools.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
STUDY = ("digits.toml", "digits.py", "common.py")
TARGET = ("torch", "numpy", "safetensors", "constriction")  # what a machine needs that only loads a model

IMPORT_ALL = """
import importlib, pkgutil, sys, warnings
warnings.simplefilter("error")
names = [m.name for top in ("rank_search", "rank_search_plugins") for m in pkgutil.walk_packages(
    importlib.import_module(top).__path__, top + ".", onerror=lambda name: sys.exit(name))]
for name in names:
    if not name.endswith(("migrations.env", "__main__")):  # Alembic runs the first, `python -m` the second
        importlib.import_module(name)
print(len(names), "modules imported")
"""
VERBS = """
from typer.main import get_command
from rank_search.cli.main import app
def paths(command, path=()):
    yield path
    for name, each in getattr(command, "commands", {}).items():
        yield from paths(each, (*path, name))
for path in paths(get_command(app)):
    print(*path)
"""
LOAD = """
import sys, torch, rank_search as rs
image = torch.zeros(1, 1, 8, 8)
answers = [rs.load(path)(image) for path in sys.argv[1:]]
assert all(each.shape == (1, 10) and each.isfinite().all() for each in answers), answers
"""


def main() -> None:
    """Build, install, use, remove."""
    with tempfile.TemporaryDirectory(prefix="rank-search-wheel-") as folder:
        wheel = build(Path(folder) / "dist")
        user = venv(Path(folder) / "user")
        pip(user, "install", f"{wheel}[demo]")
        work = study_in(Path(folder) / "a user's folder")
        use(user, work)
        do_without_ray(user, work)
        load_with_little(venv(Path(folder) / "target"), wheel, work)
        remove(user)


def build(folder: Path) -> Path:
    """The wheel, made from the sdist, so that both are whole."""
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def venv(folder: Path) -> Path:
    """The programs of a new environment."""
    run(sys.executable, "-m", "venv", folder)
    return folder / "bin"


def pip(programs: Path, *arguments: object) -> None:
    """Run pip there, with the pinned versions."""
    run(programs / "python", "-m", "pip", "--quiet", *arguments, "--constraint", ROOT / "constraints.txt")


def study_in(folder: Path) -> Path:
    """A folder with a study of a user's own."""
    folder.mkdir()
    for name in STUDY:
        shutil.copy(ROOT / "studies" / name, folder)
    return folder


def use(programs: Path, work: Path) -> None:
    """Every module, every verb's help, and the way from a network to a deployed model."""
    command = programs / "rank-search"
    run(programs / "python", "-c", IMPORT_ALL, cwd=work)
    for verb in run(programs / "python", "-c", VERBS, cwd=work).splitlines():
        run(command, *verb.split(), "--help", cwd=work)
    run(command, "plugins", "check", "svd", cwd=work)
    run(command, "run", "digits.toml", "--trials", 5, "--store", "digits.sqlite", cwd=work)
    front = run(command, "front", "digits.sqlite", "digits", "--format", "csv", cwd=work).splitlines()
    trial = front[1].split(",")[front[0].split(",").index("trial")]
    run(command, "export", "digits.sqlite", "digits", trial, "-o", "exported", cwd=work)
    run(command, "pack", "digits.sqlite", "digits", trial, "-o", "packed.rsz", cwd=work)
    run(command, "pack-model", "digits.toml", "-o", "model.rsz", cwd=work)
    run(command, "report", "digits.sqlite", "digits", "-o", "digits.html", cwd=work)


def do_without_ray(programs: Path, work: Path) -> None:
    """Go on with the search after what README says may be removed on a single machine."""
    run(programs / "python", "-m", "pip", "--quiet", "uninstall", "--yes", "ray", "pyarrow")
    run(
        programs / "rank-search",
        "run",
        "digits.toml",
        "--trials",
        7,
        "--store",
        "digits.sqlite",
        "--workers",
        2,
        cwd=work,
    )


def load_with_little(programs: Path, wheel: Path, work: Path) -> None:
    """Load what was made on a machine that has no more than a target machine needs."""
    pip(programs, "install", "--no-compile", *TARGET)  # one process imports it, and not all of it
    pip(programs, "install", "--no-compile", "--no-deps", wheel)
    run(programs / "python", "-c", LOAD, "exported", "packed.rsz", "model.rsz", cwd=work)


def remove(programs: Path) -> None:
    """Uninstall, and see that nothing stays."""
    run(programs / "python", "-m", "pip", "--quiet", "uninstall", "--yes", "rank-search")
    left = [path for path in programs.parent.rglob("*rank_search*") if path.name != "__pycache__"]
    if left:
        sys.exit(f"Uninstalling leaves {left} behind.")


def run(program: object, *arguments: object, cwd: Path | None = None) -> str:
    """What a program prints; ends with all that it said if it fails."""
    words = [str(word) for word in (program, *arguments)]
    sys.stdout.write(f"$ {' '.join([Path(words[0]).name, *words[1:]])[:160]}\n".replace("\n", " ").rstrip() + "\n")
    sys.stdout.flush()
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=own, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\n{words[0]} ended with {done.returncode}.")
    return done.stdout


if __name__ == "__main__":
    main()

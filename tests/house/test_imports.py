"""Who may import whom: a room imports what it stands on, never its neighbour, never upwards."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rank_search"

CELLAR = {"amounts", "credentials", "directions", "errors", "point"}
EVERYWHERE = set(sys.stdlib_module_names) | {"pydantic", "pydantic_core"}

# room: (rooms it may import, libraries it may import)
TABLE: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "amounts": ({"errors"}, set()),
    "directions": (set(), set()),
    "point": ({"errors", "amounts"}, set()),
    "layers": (CELLAR, {"torch"}),
    "priors": (CELLAR | {"layers"}, {"torch", "numpy", "scipy", "safetensors"}),
    "search": (CELLAR | {"layers", "priors"}, {"optuna", "numpy"}),
    "coding": (CELLAR, {"torch", "numpy", "constriction"}),
    "trials": (CELLAR | {"layers", "coding", "artifacts"}, {"torch", "numpy", "safetensors"}),
    "fronts": (CELLAR | {"artifacts"}, {"numpy", "pandas", "sqlalchemy", "alembic", "moocore"}),
    "figures": (CELLAR | {"fronts"}, {"matplotlib", "plotext"}),
    "testing": (CELLAR | {"layers"}, {"torch", "pytest"}),
    "credentials": (set(), set()),
    "places": (CELLAR, {"fsspec"}),
    "artifacts": (CELLAR | {"places"}, set()),
    "logs": ({"credentials", "errors"}, {"structlog"}),
    "streams": (set(), set()),
    "launch": (CELLAR | {"search", "fronts", "artifacts", "logs", "streams"}, set()),
    "study": (CELLAR | {"layers", "priors", "search", "trials", "launch"}, set()),
    "report": (CELLAR | {"fronts"}, {"numpy", "jinja2", "markupsafe", "plotly"}),
    "locating": (CELLAR | {"fronts", "study"}, set()),
    "status": (CELLAR | {"fronts"}, set()),
    "submit": (CELLAR | {"study", "fronts"}, {"ray"}),
    "subject": (CELLAR | {"layers", "fronts", "trials", "study"}, {"torch"}),
    "mirror": (CELLAR | {"fronts", "search"}, {"optuna"}),
    "overparameterized": (CELLAR | {"layers", "priors", "study", "subject", "trials"}, {"torch"}),
    "prepare": (CELLAR | {"overparameterized", "priors", "search", "study", "subject", "trials"}, {"torch"}),
    "record": (
        CELLAR | {"artifacts", "layers", "fronts", "priors", "search", "study", "subject", "trials", "prepare"},
        {"torch"},
    ),
    "work": (
        CELLAR | {"artifacts", "logs", "launch", "layers", "priors", "study", "subject", "trials", "prepare"},
        {"torch", "numpy"},
    ),
    "cluster": (
        CELLAR | {"artifacts", "launch", "layers", "priors", "study", "subject", "trials", "prepare", "work"},
        {"torch", "numpy"},
    ),
    "local": (CELLAR | {"artifacts", "launch", "study", "trials", "prepare", "work"}, set()),
    "run": (
        CELLAR
        | {"artifacts", "fronts", "launch", "search", "study", "subject", "trials", "prepare", "record"}
        | {"cluster", "local", "locating"},
        {"torch"},
    ),
    "export": (
        CELLAR | {"artifacts", "coding", "layers", "trials", "fronts", "study", "subject"},
        {"torch", "safetensors", "onnxruntime"},
    ),
    "confirmation": (CELLAR | {"fronts", "launch", "record", "run", "search", "study", "subject", "trials"}, set()),
    "posttraining": (CELLAR | {"coding", "export", "layers", "trials"}, {"torch"}),
    "compression": (CELLAR | {"fronts", "launch", "layers", "study", "trials", "subject", "run", "export"}, {"torch"}),
}
ONLY_IN = {  # a library that some files of a room may import
    ("launch", "ray"): {"ray.py", "tensorboard.py"},
    ("search", "torch"): {"fits.py"},
    ("search", "scipy"): {"surrogate.py"},
}
SETTINGS_ONLY = {"study"}  # of other rooms it takes the settings models, and the contract of a task


def rooms() -> list[str]:
    names = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}
    return sorted(names - {"__init__", "__main__", "__pycache__", "py"})


def files_of(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def imports(path: Path) -> Iterator[str]:
    """Every absolute dotted name that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            module = str(node.module)
            yield from (f"{module}.{alias.name}" for alias in node.names) if module == "rank_search" else (module,)


def test_every_room_is_in_the_table() -> None:
    assert set(rooms()) == set(TABLE) | {"cli"}


@pytest.mark.parametrize("room", sorted(TABLE))
def test_a_room_imports_what_it_stands_on(room: str) -> None:
    allowed_rooms, libraries = TABLE[room]
    for path in files_of(room):
        for name in imports(path):
            top, *rest = name.split(".")
            where = f"{path.relative_to(ROOT)} imports {name}"
            if top == "rank_search":
                assert rest, f"{where}: name the room"
                assert rest[0] in allowed_rooms | {room}, where
            else:
                here = path.name in ONLY_IN.get((room, top), ())
                assert here or top in libraries | EVERYWHERE, where


def test_nobody_imports_the_roof() -> None:
    for room in TABLE:
        for path in files_of(room):
            assert not any(name.startswith("rank_search.cli") for name in imports(path)), path


def test_plugins_stand_on_layers_and_mathematics_alone() -> None:
    for path in sorted((ROOT / "plugins").glob("*.py")):
        for name in imports(path):
            allowed = name == "rank_search.layers" or name.split(".")[0] in EVERYWHERE | {
                "torch",
                "tensorly",
                "numpy",
            }
            assert allowed, f"{path.name} imports {name}"


def test_studies_use_public_names_only() -> None:
    for path in sorted((ROOT / "studies").glob("*.py")):
        assert not any(name.startswith("rank_search.") for name in imports(path)), path


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout


def test_a_query_imports_neither_torch_nor_optuna() -> None:
    code = (
        "import sys, rank_search.cli, rank_search as rs; rs.Store, rs.Bound\n"
        "heavy = ('torch', 'optuna', 'scipy', 'alembic', 'ray', 'structlog', 'fsspec')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert run_python(code).strip() == "[]"


def test_tensorly_is_imported_by_the_plugin_that_needs_it() -> None:
    code = (
        "import sys; from rank_search.layers import load_plugin; load_plugin('svd'); print('tensorly' in sys.modules)"
    )
    assert run_python(code).strip() == "False"

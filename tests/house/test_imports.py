"""Who may import whom: a room imports what it stands on, never its neighbour, never upwards."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rank_search"

ROWS = (  # from the cellar to the roof: a room imports what lies in a lower row
    ("errors",),
    ("basics",),
    ("point",),
    ("layers", "programs", "coding", "artifacts", "pareto"),
    ("priors", "tasks", "testing"),
    ("quantization", "sources", "representations"),
    ("options",),
    ("training", "continuous"),
    ("search", "trials", "store"),
    ("observe",),
    ("launch",),
    ("study", "figures", "report"),
    ("export", "submit"),
    ("run",),
    ("cli",),
)
LIBRARIES: dict[str, set[str]] = {
    "layers": {"torch", "pandas"},
    "programs": {"torch"},
    "coding": {"torch", "numpy", "constriction", "safetensors"},
    "artifacts": {"fsspec"},
    "pareto": {"numpy", "moocore"},
    "priors": {"torch", "numpy", "scipy", "safetensors"},
    "tasks": {"torch", "numpy"},
    "testing": {"torch", "pytest"},
    "representations": {"torch", "numpy", "PIL"},
    "options": {"numpy", "pandas"},
    "quantization": {"torch", "numpy"},
    "sources": {"torch"},
    "training": {"torch"},
    "continuous": {"torch", "numpy"},
    "search": {"optuna", "numpy"},
    "trials": {"torch"},
    "store": {"numpy", "pandas", "sqlalchemy", "alembic"},
    "observe": {"structlog", "optuna"},
    "study": {"torch"},
    "figures": {"matplotlib", "plotext"},
    "report": {"numpy", "jinja2", "markupsafe", "plotly"},
    "export": {"torch", "safetensors", "onnxruntime"},
    "submit": {"ray"},
    "run": {"torch", "numpy"},
    "cli": {"typer", "rich", "optuna", "optuna_dashboard"},
}
EVERYWHERE = set(sys.stdlib_module_names) | {"pydantic", "pydantic_core"}
ONLY_IN = {  # a library that some files of a room may import
    ("launch", "ray"): {"ray_actors.py", "ray_connection.py"},
    ("options", "torch"): {"cuts.py", "fits.py", "fitted.py", "in_order.py", "of_model.py"},
    ("options", "scipy"): {"knapsack.py"},
    ("sources", "matplotlib"): {"image_sheet.py"},
    ("search", "scipy"): {"residual.py", "surrogate.py"},
    ("trials", "numpy"): {"result_rows.py"},
    ("observe", "optuna"): {"optuna_storage.py"},
    ("observe", "ray"): {"ray_metrics.py", "tensorboard.py"},
}


PUBLIC = {
    "sources": (
        *("SynthesisSettings", "analytic_moments", "cached", "contact_sheet"),
        *("gaussian_inputs", "sampled_sequences", "synthetic_inputs"),
    ),
    "representations": (
        "FeatureGrid",
        "Fourier",
        "RadianceField",
        "Scene",
        "Several",
        "Signal",
        "Sine",
        "Views",
        "along",
        "codec_curves",
        "coordinates",
        "fourier",
        "grid",
        "looking_at",
        "psnr",
        "radiance_field",
        "ray_weights",
        "rays",
        "read_signal",
        "render",
        "render_views",
        "several",
        "siren",
        "trained_once",
        "trained_scene",
    ),
    "testing": ("GEOMETRIES", "FactorizationLaws", "LawResult", "LayerKindLaws", "check_factorization", "check_law"),
}


def below(room: str) -> set[str]:
    """The rooms that it may import."""
    (height,) = [at for at, row in enumerate(ROWS) if room in row]
    return {each for row in ROWS[:height] for each in row}


def rooms() -> list[str]:
    names = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}
    return sorted(names - {"__init__", "__main__", "__pycache__", "py"})


def files_of(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def imports(path: Path) -> Iterator[str]:
    """Every absolute dotted name that a file imports, wherever in the file.

    A plugin's neighbour is named relatively: installed, their folder has another name than here.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 1 and path.parent == ROOT / "plugins":
                continue
            assert node.level == 0, f"{path}: imports are absolute here"
            module = str(node.module)
            yield from (f"{module}.{alias.name}" for alias in node.names) if module == "rank_search" else (module,)


def test_every_room_has_a_place() -> None:
    assert set(rooms()) == {room for row in ROWS for room in row}


@pytest.mark.parametrize("room", rooms())
def test_a_room_imports_what_it_stands_on(room: str) -> None:
    for path in files_of(room):
        for name in imports(path):
            top, *rest = name.split(".")
            where = f"{path.relative_to(ROOT)} imports {name}"
            if top == "rank_search":
                assert rest, f"{where}: name the room"
                assert rest[0] in below(room) | {room}, where
            else:
                only = ONLY_IN.get((room, top))
                allowed = top in LIBRARIES.get(room, set()) | EVERYWHERE if only is None else path.name in only
                assert allowed, where


def test_rooms_are_entered_by_their_doors() -> None:
    for room in rooms():
        for path in files_of(room):
            for name in imports(path):
                parts = name.split(".")
                inside = len(parts) > 2 and (PACKAGE / parts[1] / f"{parts[2]}.py").exists()
                assert not inside or parts[1] == room, f"{path.relative_to(ROOT)} imports {name}"


def test_doors_show_what_others_use() -> None:
    used: dict[str, set[str]] = {room: set(PUBLIC.get(room, ())) for room in rooms()}
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "plugins").glob("*.py"), *(ROOT / "docs").glob("*.md")]:
        text = path.read_text(encoding="utf-8")
        for room, names in re.findall(r"from rank_search\.(\w+) import (\([^)]*\)|[^\n]*)", text):
            if path.parent.name != room and room in used:
                used[room] |= set(re.findall(r"\w+", names))
    for room, names in used.items():
        door = PACKAGE / room / "__init__.py"
        if door.exists() and room != "cli":
            shown = set(importlib.import_module(f"rank_search.{room}").__all__)
            assert not shown - names, f"{room} shows what nobody uses: {shown - names}"


def test_plugins_stand_on_layers_and_mathematics_alone() -> None:
    for path in sorted((ROOT / "plugins").glob("*.py")):
        for name in imports(path):
            allowed = name in ("rank_search.layers", "rank_search.basics") or name.split(".")[0] in EVERYWHERE | {
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
        "heavy = ('torch', 'optuna', 'scipy', 'numpy', 'moocore', 'alembic', 'ray', 'structlog', 'fsspec')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert run_python(code).strip() == "[]"


def test_tensorly_is_imported_by_the_plugin_that_needs_it() -> None:
    code = (
        "import sys; from rank_search.layers import load_plugin; load_plugin('svd'); print('tensorly' in sys.modules)"
    )
    assert run_python(code).strip() == "False"

"""A notebook in examples/ runs as it stands and shows what it showed when it was kept; all were executed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

KEPT = Path(__file__).parents[2] / "examples" / "choose_a_model.ipynb"
RUN = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(book, timeout=600).execute()
nbformat.write(book, sys.argv[2])
"""


def kinds(book: Any) -> list[set[str]]:
    """What each code cell shows: the types of its rich outputs, and whether it prints."""
    shown = []
    for cell in book.cells:
        if cell.cell_type == "code":
            outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
            shown.append({kind for each in outputs for kind in each.get("data", {"printed": ""})} - {"text/plain"})
    return shown


def test_the_notebook_runs_and_shows_what_it_showed(tmp_path: Path) -> None:
    target = tmp_path / "run.ipynb"
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(KEPT), str(target)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(KEPT.parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    again = nbformat.read(target, as_version=4)
    kept = nbformat.read(KEPT, as_version=4)
    assert kinds(again) == kinds(kept)
    assert [cell.source for cell in again.cells] == [cell.source for cell in kept.cells]
    assert {"text/html"} in kinds(kept)
    assert {"image/svg+xml"} in kinds(kept)


@pytest.mark.parametrize("path", sorted(KEPT.parent.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_was_executed_from_top_to_bottom(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [each for cell in cells for each in cell.outputs if each.output_type == "error"]
    assert set.union(*kinds(book)) & {"image/png", "image/svg+xml"}
    for cell in cells:
        compile(cell.source, path.name, "exec")
    assert path.stat().st_size < 1_000_000

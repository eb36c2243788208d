"""The page that teaches how to write a kind of layer is true: its code is put together as it says, and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rank_search.layers import kinds, opener
from rank_search.testing.kind_laws import LAYER_KIND_LAWS
from rank_search.testing.opened_laws import OPENED_LAWS

PAGE = (Path(__file__).parents[2] / "docs" / "writing-a-layer-kind.md").read_text(encoding="utf-8")

MODEL = """
import torch
from gated import Gated
from in_out import InOut
from torch import nn

import rank_search as rs

torch.manual_seed(0)
model = nn.Sequential(InOut(12, 24), Gated(24, 24), InOut(24, 3))
x = torch.randn(64, 12)
table = rs.options(model, [x], example=x[:1])
small = rs.factorize(model, rs.allocate(table, params=0.5), table)
print([row.layer for row in rs.layers(model, x[:1])], sum(each.numel() for each in small.parameters()))
assert (small(x) - model(x)).square().mean() < model(x).square().mean()
"""


def code(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


KIND, OPENED, TESTS = code("python")
(PROJECT,) = code("toml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The author's folder, with what pip would have written of the entry points."""
    folder = tmp_path_factory.mktemp("author")
    for name, text in {"in_out": KIND, "gated": OPENED, "test_both": TESTS, "model": MODEL}.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    installed = folder / "in_out-0.1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: in-out\nVersion: 0.1\n", encoding="utf-8")
    (installed / "entry_points.txt").write_text(PROJECT.replace("project.entry-points.", "").replace('"', ""))
    return folder


def run(folder: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_documented_classes_pass_their_tests(folder: Path) -> None:
    found = run(folder, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_both.py")
    assert f"{2 * len(LAYER_KIND_LAWS) + len(OPENED_LAWS) + 2} passed" in found


def test_a_model_of_documented_layers_is_factorized(folder: Path) -> None:
    found = run(folder, "model.py")
    assert found.startswith("['0', '1.gate', '1.value', '2'] ")
    assert int(found.split()[-1]) <= (12 * 24 + 2 * 24 * 24 + 24 * 3) / 2


def test_documented_entry_points_are_in_the_groups() -> None:
    points = tomllib.loads(PROJECT)["project"]["entry-points"]
    assert points == {kinds.GROUP: {"in-out": "in_out:InOutKind"}, opener.GROUP: {"gated": "gated:OpenedGated"}}


def test_the_page_names_every_law_and_is_one_page() -> None:
    laws = re.findall(r"^\| (\w[\w ]*\w) \|", PAGE, re.MULTILINE)
    assert laws == ["of a kind", *LAYER_KIND_LAWS, "of what is opened", *OPENED_LAWS]
    assert len(PAGE.splitlines()) < 200

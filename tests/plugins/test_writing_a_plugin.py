"""The page that teaches how to write a plugin is true: its code is put together as it says, and run."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from rank_search.layers import Cost, DirectBases, Factorization, Layer, layer_cost, load_plugin, output_error, plugins
from rank_search.point import Choice
from rank_search.testing import GEOMETRIES, check_factorization
from rank_search.testing.laws import LAWS

PAGE = (Path(__file__).parents[2] / "docs" / "writing-a-plugin.md").read_text(encoding="utf-8")


def code(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


SLOW, FAST_METHODS, INFORMED, TESTS = code("python")
ANY = """
class AnyKronecker(Kronecker):
    any_geometry = True

    @classmethod
    def axes(cls, layer):
        return super().axes(layer) if layer.groups == 1 else ()
"""
(PROJECT,) = code("toml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The author's folder, with the class before and after section 2."""
    folder = tmp_path_factory.mktemp("author")
    (folder / "slow.py").write_text(SLOW, encoding="utf-8")
    (folder / "kronecker.py").write_text(f"{SLOW}\n{FAST_METHODS}", encoding="utf-8")
    (folder / "informed.py").write_text(f"{SLOW}\n{FAST_METHODS}\n{INFORMED}", encoding="utf-8")
    (folder / "any.py").write_text(f"{SLOW}\n{FAST_METHODS}\n{ANY}", encoding="utf-8")
    (folder / "test_kronecker.py").write_text(TESTS, encoding="utf-8")
    return folder


@pytest.mark.parametrize("file", ["slow.py", "kronecker.py"])
def test_documented_class_obeys_the_laws_before_and_after_section_2(folder: Path, file: str) -> None:
    plugin = load_plugin(f"{folder / file}:Kronecker")
    assert [str(result) for result in check_factorization(plugin, equality=True) if not result.ok] == []


def test_documented_class_for_any_geometry_obeys_the_laws_on_all(folder: Path) -> None:
    plugin = load_plugin(f"{folder / 'any.py'}:AnyKronecker")
    results = check_factorization(plugin, equality=True)
    assert [str(result) for result in results if not result.ok] == []
    assert len({result.layer for result in results}) > len(GEOMETRIES)


def test_documented_fit_that_knows_the_inputs_obeys_the_laws_and_comes_closer(folder: Path) -> None:
    plain, scaled = (load_plugin(f"{folder / 'informed.py'}:{name}") for name in ("Kronecker", "Scaled"))
    assert [str(result) for result in check_factorization(scaled, equality=True) if not result.ok] == []
    layer = Layer("x", "linear", (8, 6))
    generator = torch.Generator().manual_seed(0)
    weight, X = torch.randn(8, 6, generator=generator), torch.randn(50, 6, generator=generator).relu()
    bases, errors = DirectBases(weight, X.T @ X / 50), []
    for plugin in (scaled, plain):
        module = plugin(layer, rank=1)
        module.fit(weight, bases)
        errors.append(output_error(weight, module.dense(), bases.moment))
    assert errors[0] < errors[1]


def test_documented_faster_forward_saves_macs(folder: Path) -> None:
    layer = Layer("x", "conv2d", (64, 64, 3, 3), padding=((1, 1), (1, 1)), inputs=((1, 64, 8, 8),))

    def cost(plugin: type[Factorization] | None) -> Cost:
        return layer_cost(layer, plugin, Choice("kronecker", {"rank": 4}) if plugin else Choice())

    dense = cost(None)
    slow, fast = (cost(load_plugin(f"{folder / file}:Kronecker")) for file in ("slow.py", "kronecker.py"))
    assert fast.params == slow.params < dense.params / 10
    assert fast.macs < dense.macs == slow.macs


def test_documented_plugin_passes_its_tests(folder: Path) -> None:
    chosen = ["-k", "agreement or some_layer", "test_kronecker.py"]  # the others were tried above
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *chosen]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f"{len(GEOMETRIES) + 1} passed" in done.stdout


def test_documented_project_file_registers_the_class() -> None:
    project = tomllib.loads(PROJECT)
    assert project["project"]["entry-points"][plugins.GROUP] == {"kronecker": "kronecker:Kronecker"}
    assert project["tool"]["setuptools"]["py-modules"] == ["kronecker"]


def test_plugin_page_names_every_law_and_every_method() -> None:
    assert re.findall(r"^\| (\w[\w ]*\w) \|", PAGE, re.MULTILINE)[1:] == list(LAWS)
    methods = [
        name for name in ("axes", "__init__", "fit", "dense", "forward", "frames", "stored") if f"**`{name}(" in PAGE
    ]
    assert len(methods) == 7


def test_plugin_page_is_one_page_and_counts_right() -> None:
    assert len(PAGE.splitlines()) < 200
    assert "six laws on thirty layers" in PAGE
    assert len(GEOMETRIES) == 30

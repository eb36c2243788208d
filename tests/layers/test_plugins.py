"""Factorizations are found by entry point or in a file, and what cannot be used says why."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from rank_search.errors import BrokenPluginError, ContractError, UnknownPluginError
from rank_search.layers import Factorization, Layer, installed, load_plugin, plugin_code, plugins

BUILT_IN = {
    "block-svd-16": "SixteenBlocks",
    "block-svd-4": "FourBlocks",
    "block-svd-8": "EightBlocks",
    "buckets": "Buckets",
    "circulant-2": "PairsOfChannels",
    "circulant-4": "FoursOfChannels",
    "circulant-8": "EightsOfChannels",
    "cp": "CP",
    "filter-basis": "FilterBasis",
    "hashing": "Hashing",
    "hashing-kronecker": "KroneckerHashing",
    "kronecker-sum": "KroneckerSum",
    "shared-basis": "SharedBasis",
    "shared-plus-own": "SharedPlusOwn",
    "soft-rank": "SoftRank",
    "soft-threshold": "SoftThreshold",
    "svd": "ChannelSVD",
    "svd-spatial": "SpatialSVD",
    "symmetric-flips": "Flipped",
    "symmetric-half-turn": "HalfTurned",
    "symmetric-left-right": "Mirrored",
    "symmetric-quarter-turns": "QuarterTurned",
    "symmetric-up-down": "UpsideDown",
    "tensor-train": "TensorTrain",
    "tucker2": "Tucker2",
}

FILE = """
from rank_search.layers import Axis, Factorization
from rank_search_plugins.svd import ChannelSVD

class Half(ChannelSVD):
    pass

class Unfinished(Factorization):
    @classmethod
    def axes(cls, layer):
        return ()

number = 7
"""


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    load_plugin.cache_clear()
    yield
    load_plugin.cache_clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_the_built_in_ones_are_installed_and_load() -> None:
    assert list(installed()) == sorted(installed())
    assert BUILT_IN.items() <= {name: load_plugin(name).__name__ for name in installed()}.items()


def test_a_class_in_a_file(file: Path) -> None:
    half = load_plugin(f"{file}:Half")
    assert issubclass(half, Factorization)
    assert load_plugin(f"{file}:Half") is half
    module = half(Layer("x", "linear", (3, 4)), rank=2)
    assert torch.equal(pickle.loads(pickle.dumps(module)).left, module.left)


def test_files_of_one_stem_are_two_modules(tmp_path: Path) -> None:
    found = []
    for folder, number in (("one", 7), ("other", 8)):
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir()
        path.write_text(FILE.replace("number = 7", f"number = {number}"))
        found.append((path, load_plugin(f"{path}:Half")))
    for path, half in found:
        assert pickle.loads(pickle.dumps(half)) is half
        assert Path(inspect.getfile(half)) == path
    assert len({plugin_code("Half", half, tmp_path) for _, half in found}) == 2


def test_classes_in_one_file_are_of_one_module_until_it_changes(file: Path) -> None:
    file.write_text(FILE.replace("class Unfinished", "class Quarter(Half):\n    pass\n\nclass Unfinished"))
    half, quarter = load_plugin(f"{file}:Half"), load_plugin(f"{file}:Quarter")
    assert issubclass(quarter, half)
    assert pickle.loads(pickle.dumps(half)) is half
    file.write_text(FILE)
    load_plugin.cache_clear()
    assert load_plugin(f"{file}:Half") is not half
    with pytest.raises(UnknownPluginError, match="has no class 'Quarter'"):
        load_plugin(f"{file}:Quarter")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownPluginError, match="did you mean 'tucker2'") as raised:
        load_plugin("tucker")
    assert (
        "cp, dense, filter-basis, hashing, hashing-kronecker, kronecker-sum, shared-basis, shared-plus-own, soft-rank, "
        in str(raised.value)
    )


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownPluginError, match=r"There is no file .*absent\.py"):
        load_plugin(f"{tmp_path / 'absent.py'}:Half")


def test_a_class_that_is_not_there(file: Path) -> None:
    with pytest.raises(UnknownPluginError, match="has no class 'Third'"):
        load_plugin(f"{file}:Third")


def test_a_file_that_does_not_import(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import a_module_nobody_has")
    with pytest.raises(BrokenPluginError, match="does not import: ModuleNotFoundError"):
        load_plugin(f"{path}:Half")
    path.write_text(FILE)
    assert load_plugin(f"{path}:Half").__name__ == "Half"


def test_something_else_than_a_factorization(file: Path) -> None:
    for attribute in ("number", "Axis"):
        with pytest.raises(ContractError, match="a factorization is a subclass"):
            load_plugin(f"{file}:{attribute}")


def test_an_unfinished_factorization_is_told_what_it_lacks(file: Path) -> None:
    with pytest.raises(ContractError, match="lacks dense, fit"):
        load_plugin(f"{file}:Unfinished")


def test_an_installed_one_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("shaky", "a_module_nobody_has:Shaky", plugins.GROUP)
    monkeypatch.setattr(plugins, "installed", lambda: {"shaky": entry})
    with pytest.raises(BrokenPluginError, match=r"'shaky' .* ModuleNotFoundError.*Reinstall"):
        load_plugin("shaky")

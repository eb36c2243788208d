"""`rank-search allocate`: a smaller model of a task, without a study in a store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import rank_search as rs
from rank_search.layers.costs import count_macs, count_params
from rank_search.study import load_task
from tests.story.small import Command, Small, write_study


@pytest.fixture
def fresh(tmp_path: Path) -> Small:
    return write_study(tmp_path / "study")


def test_a_study_file_gives_a_model_within_the_bounds(command: Command, fresh: Small, tmp_path: Path) -> None:
    answer = command.fine("allocate", fresh.file, "--macs", 0.8, "--params", "90%", "-o", tmp_path / "made")
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text(encoding="utf-8"))
    task = load_task(rs.load_study(fresh.file))
    dense, x = task.model(), task.example()
    assert manifest["dense"]["macs"] == count_macs(dense, [x])
    assert manifest["measurements"]["macs"] <= 0.8 * manifest["dense"]["macs"]
    assert manifest["measurements"]["params"] <= 0.9 * count_params(dense)
    deployed = rs.load(tmp_path / "made")
    with torch.no_grad():
        for name, model in (("measurements", deployed), ("dense", dense)):
            error = task.evaluate(model, task.selection())["error"]
            assert manifest[name]["error"] == error
            assert f"{error:.4g}" in answer.out
    assert set(manifest["layers"]) == {"second", "last"}  # [layers] exclude names the first one
    assert "second" in answer.out
    assert "trial" not in manifest
    assert sorted(manifest["files"]) == ["graph.json", "model.safetensors"]
    assert not Path(fresh.store).exists()


def test_a_factory_will_do_and_nothing_need_be_measured(
    command: Command, fresh: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fresh.folder)
    command.fine(
        "allocate", "stripes.py:task", "--bits", 0.8, "--no-measure", "--format", "pt2", "-o", tmp_path / "made"
    )
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["measurements"]) == {"params", "macs"}
    assert manifest["measurements"]["params"] <= 0.8 * manifest["dense"]["params"]
    program = torch.export.load(tmp_path / "made" / "model.pt2").module()
    assert program(torch.zeros(3, 1, 8, 8)).shape == (3, 4)


def test_forms_are_judged_by_the_costs_that_are_bounded(command: Command, tmp_path: Path) -> None:
    """A form that saves parameters alone, and no multiply-add, is of use where parameters are bounded."""
    study = write_study(tmp_path / "study", layers={"factorizations": ["buckets"]})
    command.fine("allocate", study.file, "--params", 0.7, "--no-measure", "-o", tmp_path / "made")
    assert json.loads((tmp_path / "made" / "manifest.json").read_text(encoding="utf-8"))["layers"]["last"]
    assert "The least that" in command.refused("allocate", study.file, "--macs", 0.9, "-o", tmp_path / "other")


def test_what_cannot_be_is_said_and_leaves_nothing(command: Command, fresh: Small, tmp_path: Path) -> None:
    target = tmp_path / "made"
    assert "There is no bound" in command.refused("allocate", fresh.file, "-o", target)
    assert "The least that" in command.refused("allocate", fresh.file, "--macs", "0.01", "-o", target)
    assert "([layers] of the study file" in command.refused("allocate", fresh.file, "--macs", "0.01", "-o", target)
    assert "bound on macs is nan" in command.refused("allocate", fresh.file, "--macs", "nan", "-o", target)
    assert "plenty" in command.refused("allocate", fresh.file, "--macs", "plenty", "-o", target)
    assert "no format 'zip'" in command.refused("allocate", fresh.file, "--macs", 0.5, "--format", "zip", "-o", target)
    assert not target.exists()
    target.mkdir()
    assert "already exists" in command.refused("allocate", fresh.file, "--macs", 0.5, "-o", target)
    assert list(tmp_path.iterdir()) in ([target, fresh.folder], [fresh.folder, target])


def test_a_written_model_that_has_changed_is_noticed(command: Command, fresh: Small, tmp_path: Path) -> None:
    command.fine("allocate", fresh.file, "--macs", 0.8, "--no-measure", "-o", tmp_path / "made")
    (tmp_path / "made" / "model.safetensors").write_bytes(b"")
    with pytest.raises(rs.RankSearchError, match=r"model\.safetensors"):
        rs.load(tmp_path / "made")

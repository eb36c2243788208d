"""Forms of which nothing but their numbers is stored: searched for parameters, trained, exported and packed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import rank_search as rs
from rank_search.export.formats import FORMATS
from tests.story.small import Command, write_study
from tests.story.test_verbs import error_of

FORMS = {
    "buckets": {"second", "last"},
    "circulant-4": {"second", "last"},
    "symmetric-left-right": {"second"},
    "symmetric-quarter-turns": {"second"},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_search_for_parameters_finds_it_and_what_is_written_computes_the_same(form: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    small = write_study(
        tmp_path / "study",
        study={"trials": 4},
        layers={"factorizations": [form]},
        search={"objectives": ["error", "params"], "constraints": [], "seeds": {"allocations": 2}},
    )
    rs.run_study(rs.load_study(small.file))
    with rs.Store.open(small.store) as store:
        rows = store.trials("stripes")
        assert {row.state for row in rows} == {"complete"}
        front = [row for row in rows if row.dominated_by is None]
        least = min(front, key=lambda row: row.measurements["params"])
        assert {name for name, each in least.point.layers.items() if each.factorization == form} == FORMS[form]
        for format in ("safetensors", "onnx"):
            rs.export_trial(store, "stripes", least.number, tmp_path / format, format)
        rs.pack_trial(store, "stripes", least.number, tmp_path / "packed.rsz")
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    loaded = rs.load(tmp_path / "safetensors")
    assert error_of(loaded) == least.measurements["error"]
    with torch.no_grad():
        for other in (rs.load(tmp_path / "packed.rsz"), FORMATS["onnx"].read(tmp_path / "onnx", {})):
            torch.testing.assert_close(other(x), loaded(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("form", [*FORMS, "symmetric-flips"])
def test_its_laws_are_checked_by_name(form: str, command: Command) -> None:
    assert "broken" not in command.fine("plugins", "check", form).out

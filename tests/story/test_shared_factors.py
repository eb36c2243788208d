"""A study in which tied layers share factors: search, front, exports and files, each as the trial was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import rank_search as rs
from rank_search.errors import ExportError
from rank_search.export.packed_file import read_packed
from rank_search.export.replacements import Replacements
from rank_search.layers import Factorization, count_params, fuse
from rank_search.point import State
from rank_search.run import prepare, run_study
from rank_search.store import TrialRow
from tests.story.small import Command, Small, write_study
from tests.story.test_packed import error_of

TASK = """
from collections import OrderedDict
import torch
from stripes import batches
from torch import nn
import rank_search as rs

def task():
    torch.manual_seed(0)
    parts = OrderedDict(first=nn.Conv2d(1, 8, 3, padding=1))
    for place in range(3):
        parts |= {f"conv{place}": nn.Conv2d(8, 8, 3, padding=1, bias=False), f"norm{place}": nn.BatchNorm2d(8)}
        parts[f"relu{place}"] = nn.ReLU()
    parts |= {"pool": nn.AvgPool2d(4), "flatten": nn.Flatten(), "last": nn.Linear(32, 4)}
    return rs.Supervised(nn.Sequential(parts).eval(), *(batches(80, seed) for seed in (1, 2, 3)))
"""
POOL = ("conv0", "conv1", "conv2")
SEARCH = {
    "objectives": ["error", "params", "bits"],
    "constraints": [],
    "orthogonality": {"low": 0.01, "high": 0.1},
    "seeds": {"allocations": 3, "fractions": [0.5], "weakenings": []},
}


def study(folder: Path, *factorizations: str) -> Small:
    made = write_study(
        folder,
        study={"trials": 6},
        task={"factory": "pooled.py:task"},
        layers={"exclude": ["first", "last"], "factorizations": factorizations, "tie": [["conv*"]]},
        search=SEARCH,
        training={"epochs": 0.5},
    )
    (folder / "pooled.py").write_text(TASK, encoding="utf-8")
    return made


def trials_of(small: Small) -> list[TrialRow]:
    with rs.Store.open(small.store) as store:
        return sorted(store.trials(store.study("stripes")), key=lambda row: row.number)


def forms_of(model: nn.Module) -> list[Factorization]:
    return [each for each in model.modules() if isinstance(each, Factorization)]


@pytest.fixture(scope="module", params=["shared-basis", "hashing"])
def pooled(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Small, str]:
    made = study(tmp_path_factory.mktemp(request.param), request.param)
    assert run_study(rs.load_study(made.file)).complete
    return made, request.param


def test_tied_layers_take_it_together_and_costs_are_those_of_the_model(pooled: tuple[Small, str]) -> None:
    small, name = pooled
    costs = prepare(rs.load_study(small.file)).costs
    taken = 0
    for row in trials_of(small):
        assert row.state is State.COMPLETE, row.reason
        assert len({str(row.point.layers[layer].to_json()) for layer in POOL}) == 1
        assert costs.cost(row.point) == {cost: row.measurements[cost] for cost in ("params", "macs")}
        if row.dominated_by is not None:
            continue
        with rs.Store.open(small.store) as store:
            model = rs.build_model(store, "stripes", row.number)
        assert count_params(model) == row.measurements["params"]
        assert error_of(model, small) == row.measurements["error"]
        if forms := forms_of(model):
            taken += 1
            shared = {"shared-basis": ("basis",), "hashing": ("by_row", "by_column")}[name]
            for each in shared:
                assert len({id(form.get_parameter(each)) for form in forms}) == 1
    assert taken


def test_a_member_of_the_front_is_exported_packed_and_fused(pooled: tuple[Small, str], tmp_path: Path) -> None:
    small, _ = pooled
    with rs.Store.open(small.store) as store:
        row = next(row for row in store.front("stripes", sort="params") if not row.point.layers["conv0"].is_dense)
        rs.export_trial(store, "stripes", row.number, tmp_path / "plain")
        rs.export_trial(store, "stripes", row.number, tmp_path / "fused", fuse=True)
        rs.pack_trial(store, "stripes", row.number, tmp_path / "packed.rsz")
        model = rs.build_model(store, "stripes", row.number)
    with pytest.raises(ExportError, match="also those of the layers that it is tied to"):
        Replacements.of(model)
    assert 8 * len(read_packed(tmp_path / "packed.rsz").payload) == row.measurements["bits"]
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for path in ("plain", "fused", "packed.rsz"):
        with torch.no_grad():
            torch.testing.assert_close(rs.load(tmp_path / path)(x), model(x))
    assert error_of(rs.load(tmp_path / "packed.rsz"), small) == row.measurements["error"]
    fused = fuse(model, x[:1])
    assert fused is not None
    norms = sum(isinstance(each, nn.BatchNorm2d) for each in model.modules())
    left = sum(isinstance(each, nn.BatchNorm2d) for each in fused.modules())
    assert (norms, left) == (3, 0 if row.point.layers["conv0"].factorization == "shared-basis" else 3)
    assert count_params(fused) <= count_params(model), "what is shared is shared after the fusion, too"


def test_a_search_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole, halves = (study(tmp_path / name, "shared-basis", "svd") for name in ("whole", "halves"))
    run_study(rs.load_study(whole.file))
    for trials in (3, 6):
        run_study(rs.load_study(halves.file), trials=trials)
    first, second = trials_of(whole), trials_of(halves)
    assert [row.point for row in first] == [row.point for row in second]
    names = ("error", "params", "macs", "bits", "nonzeros")
    assert [[row.measurements[name] for name in names] for row in first] == [
        [row.measurements[name] for name in names] for row in second
    ]
    assert {each.factorization for row in first for each in row.point.layers.values()} == {
        "dense",
        "shared-basis",
        "svd",
    }


def test_the_verbs_show_the_pool(pooled: tuple[Small, str], command: Command, tmp_path: Path) -> None:
    small, name = pooled
    row = next(row for row in trials_of(small) if not row.point.layers["conv0"].is_dense)
    assert name in command.fine("show", small.store, "stripes", row.number).out
    assert "conv0" in command.fine("space", small.file).out
    command.fine("report", small.store, "stripes", "-o", tmp_path / "report.html")
    command.fine("check", small.store, "stripes")

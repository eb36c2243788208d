"""Mixtures of candidate ranks as published: plain points, coarse to fine, and never the smallest rank in silence."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

import rank_search as rs
from rank_search.continuous import mixtures
from rank_search.errors import LayerError
from rank_search.options import OptionTable


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixtures, "WARM_UP", 2)
    monkeypatch.setattr(mixtures, "JOINT", 6)


def table_of(model: nn.Module, form: str) -> OptionTable:
    example = torch.zeros(1, *((6, 5, 5) if isinstance(model[0], nn.Conv2d) else (24,)))  # type: ignore[index]
    return rs.options(model, example=example, layers={"factorizations": [form]})


def planted(rank: int) -> nn.Sequential:
    drawn = torch.Generator().manual_seed(0)
    found = nn.Sequential(nn.Linear(24, 24))
    with torch.no_grad():
        product = torch.randn(24, rank, generator=drawn) @ torch.randn(rank, 24, generator=drawn)
        found[0].weight.copy_(product / 24)
    return found


@pytest.mark.parametrize("rank", [4, 10])
def test_a_planted_rank_is_found(rank: int) -> None:
    found = rs.mixture_ranks(table_of(planted(rank), "svd"), "svd", step=2)
    assert found.layers["0"].values == {"rank": rank}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("form", ["cp", "tensor-train", "svd", "tucker2"])
def test_points_are_plain_ones_of_the_form(form: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(6, 8, 3, bias=True))
    table = table_of(model, form)
    found = rs.mixture_ranks(table, form, step=2)
    assert found.layers["0"].factorization in (form, "dense")
    rs.factorize(model, found, table)
    assert found.macs <= table.dense["macs"]


def test_the_second_round_looks_around_the_first_ones_rank() -> None:
    assert mixtures._around(40, 10, 1, 64) == list(range(35, 46))
    assert mixtures._around(60, 10, 1, 62) == list(range(55, 63))
    assert mixtures._around(7, 1, 0, 62) == [7]


@pytest.mark.usefixtures("few")
def test_where_nothing_tells_candidates_apart_the_highest_is_taken_and_said(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Linear(24, 24))
    nn.init.zeros_(model[0].weight)
    table = table_of(model, "svd")
    with caplog.at_level(logging.WARNING):
        found = rs.mixture_ranks(table, "svd", step=3)
    assert "equally likely" in caplog.text
    assert found.layers["0"].is_dense  # of 24 ranks the highest saves nothing


@pytest.mark.usefixtures("few")
def test_a_rate_that_diverges_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixtures, "CLIP", float("inf"))
    with pytest.raises(LayerError, match="Take a lower rate"):
        rs.mixture_ranks(table_of(planted(4), "svd"), "svd", step=2, rate=1e30)


def test_a_form_that_no_layer_has_is_refused() -> None:
    with pytest.raises(LayerError, match="No layer of the table has 'cp'"):
        rs.mixture_ranks(table_of(planted(4), "svd"), "cp")

"""`export --fuse`: the graph without batch norms, and the same outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import ExportError


class Network(nn.Module):
    def __init__(self, traceable: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.again = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head, self.traceable = nn.Linear(128, 4), traceable

    def forward(self, x: Tensor) -> Tensor:
        if not self.traceable:
            x = x.reshape(int(x.shape[0]), 1, 4, 4)
        y = torch.relu(self.norm(self.conv(x)))
        y = torch.relu(self.again(self.second(y)))
        return cast(Tensor, self.head(y.flatten(1)))


def searched(folder: Path, network: nn.Module) -> rs.Compressed:
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(8, 1, 4, 4, generator=generator), torch.arange(8) % 4)]
    for images, _ in data * 3:
        network.train()(images)
    store = folder / "s.sqlite"
    training = {"epochs": 0}
    return rs.compress(network.eval(), train=data, selection=data, test=data, trials=4, store=store, training=training)


def exported(found: rs.Compressed, folder: Path, fuse: bool) -> tuple[str, nn.Module, object]:
    number = found.front[-1].number
    assert any(not choice.is_dense for choice in found.front[-1].point.layers.values())
    with rs.Store.open(found.store) as store:
        manifest = rs.export_trial(store, found.name, number, folder, task=found.task, fuse=fuse)
    graph = (folder / "graph.json").read_text(encoding="utf-8")
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8")) == manifest
    return graph, rs.load(folder), manifest["fused"]


def test_the_graph_has_no_batch_norms_and_the_same_outputs(tmp_path: Path) -> None:
    found = searched(tmp_path, Network(traceable=True))
    plain, one, unmarked = exported(found, tmp_path / "plain", fuse=False)
    graph, other, marked = exported(found, tmp_path / "fused", fuse=True)
    assert (unmarked, marked) == (False, True)
    assert "batch_norm" in plain
    assert "batch_norm" not in graph
    x = torch.randn(5, 1, 4, 4)
    torch.testing.assert_close(other(x), one(x))


def test_what_cannot_be_fused_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    found = searched(tmp_path, Network(traceable=False))
    with pytest.raises(ExportError, match="Export it without --fuse"):
        exported(found, tmp_path / "fused", fuse=True)
    assert not (tmp_path / "fused").exists()
    assert exported(found, tmp_path / "plain", fuse=False)[2] is False

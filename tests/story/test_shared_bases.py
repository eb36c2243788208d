"""What travels to a worker on a cluster as arrays gives the same fits as here; no cluster is needed to see it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

import rank_search as rs
from rank_search.layers import Layer, fit_to, load_plugin
from rank_search.priors import PriorSettings, SpectraCache, axis_priors
from rank_search.run import ray_cluster as cluster
from tests.story.small import write_study

NAMES = ("svd", "svd-spatial", "tucker2", "cp", "filter-basis")
CONV = Layer("conv", "conv2d", (8, 6, 3, 3), inputs=((1, 6, 9, 9),))


class Pickled:
    """Tensors as another process gets them: pickled, and read-only."""

    def __init__(self, sent: cluster.Sent) -> None:
        self._bytes = pickle.dumps(sent)

    def get(self) -> cluster.Sent:
        sent = pickle.loads(self._bytes)
        for found in sent.values():
            for each in found.values():
                each.bits.flags.writeable = False
        return cast("cluster.Sent", sent)


@pytest.mark.parametrize("known", ["nothing", "inputs", "loss"])
@pytest.mark.parametrize(
    ("spectra", "dtype"), [("weights", torch.float32), ("outputs", torch.float32), ("weights", torch.bfloat16)]
)
def test_priors_and_fits_are_the_same_here_and_there(
    known: str, spectra: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torch.manual_seed(0)
    model = nn.ModuleDict({"conv": nn.Conv2d(6, 8, 3, dtype=dtype)})
    weight = model["conv"].get_parameter("weight").detach()
    X = torch.randn(200, 54).cumsum(1).relu()
    moment = None if known == "nothing" else X.T @ X / 200
    G = torch.randn(30, 8) * torch.arange(8)
    gradients = G.T @ G if known == "loss" else None
    conv, plugins = replace(CONV, dtype=dtype), {name: load_plugin(name) for name in NAMES}
    unfoldings = tuple(each for plugin in plugins.values() for axis in plugin.axes(conv) for each in axis.unfoldings)
    settings = PriorSettings.model_validate({"rule": "tail", "spectra": spectra})

    priors, sent = cluster._read_layer(conv, weight, (moment, gradients), plugins, unfoldings, settings)
    cache = SpectraCache()
    here = cache.bases("conv", weight, moment, gradients)
    assert priors == axis_priors(conv, plugins, here, settings)

    there = cluster._SharedBases(model, {"conv": cast("Any", Pickled(sent))})("conv")
    assert (there.moment is None) == (moment is None)
    assert (there.weighed is None) == (gradients is None)
    for name, plugin in plugins.items():
        values = {axis.name: max(1, int(axis.high) // 3) for axis in plugin.axes(conv)}
        fits = []
        for bases in (here, there):
            module = plugin(conv, **values)
            fit_to(module, weight, bases)
            fits.append(module.dense())
        assert torch.equal(*fits), name


def test_worker_processes_fit_to_the_loss_as_the_driver_does(tmp_path: Path) -> None:
    measured = []
    for name, workers, metric in (("one", 1, "loss"), ("two", 2, "loss"), ("outputs", 1, "outputs")):
        seeds = {"allocations": 3, "fractions": [], "weakenings": []}
        small = write_study(
            tmp_path / name,
            search={"constraints": [], "seeds": seeds, "entropy": 0.1},
            priors={"metric": metric},
            training={"epochs": 0},
        )
        rs.run_study(rs.load_study(small.file), workers=workers, trials=4)
        with rs.Store.open(small.store) as store:
            rows = store.trials(store.study("stripes"))
        measured.append({row.number: (row.point.key, dict(row.measurements)) for row in rows})
    assert measured[0] == measured[1]
    assert measured[0] != measured[2]

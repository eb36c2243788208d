"""Whole studies on a second device, of a task that knows of none: they give what they give on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rank_search as rs
from rank_search.errors import LaunchError
from rank_search.launch import LaunchSettings
from rank_search.layers import DirectBases, copied, copied_to, load_plugin, take_inventory, weight_of
from rank_search.point import State
from rank_search.run import allocate_model, ray_cluster
from rank_search.store import Store, TrialRow
from rank_search.study import Study, placing
from rank_search.tasks import LossPass, on_device, seeded
from rank_search.training import MODEL, Checkpoint, FineTuning, TrainingSettings
from rank_search.training.trainer import Trainer
from rank_search.trials import TrialContext
from tests.far_device import FAR, FarTensor, far_device

DATA = [(torch.randn(16, 1, 8, 8, generator=g), torch.randint(4, (16,), generator=g)) for g in [torch.Generator()] * 4]


@pytest.fixture(autouse=True)
def _a_second_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def device_of(wanted: str, place: int = 0) -> torch.device:
        return torch.device("cpu") if wanted == "cpu" else FAR

    monkeypatch.setattr(placing, "device_of", device_of)
    monkeypatch.setattr(ray_cluster, "device_of", device_of)


def _network() -> nn.Module:
    with seeded(0):
        return nn.Sequential(
            *(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU()),
            *(nn.Flatten(), nn.Dropout(0.1), nn.Linear(128, 4)),
        ).eval()


def _searched(folder: Path, device: str, **tables: Any) -> rs.Compressed:
    return rs.compress(
        _network(),
        train=DATA,
        selection=DATA[:2],
        test=DATA[2:],
        trials=3,
        name=device,
        store=folder / f"{device}.sqlite",
        launch={"device": device},
        **tables,
    )


def _rows(found: rs.Compressed) -> list[TrialRow]:
    with Store.open(found.store) as store:
        return store.trials(store.study(found.name))


def _last_kept(found: rs.Compressed) -> int:
    """The last trial of those whose models are kept: members of the front."""
    return max(row.number for row in _rows(found) if row.artifacts)


@pytest.mark.parametrize(
    "tables",
    [
        {
            "search": {"orthogonality": 0.01, "sparsity": 0.01},
            "training": {"epochs": 1, "distillation": 0.5, "average": 0.9, "optimizer": "adamw"},
        },
        {
            "search": {"objectives": ("error", "bits"), "entropy": 0.1},
            "training": {"epochs": 1},
            "priors": {"metric": "loss", "sequential": True},
        },
    ],
    ids=["trained", "coded"],
)
def test_a_search_there_finds_what_it_finds_here(tmp_path: Path, tables: dict[str, Any]) -> None:
    here = _searched(tmp_path, "cpu", **tables)
    with far_device():
        there = _searched(tmp_path, "cuda", **tables)
    assert [row.state for row in _rows(there)] == [State.COMPLETE] * 3
    for one, other in zip(_rows(here), _rows(there), strict=True):
        assert other.point == one.point
        assert other.measurements == pytest.approx(one.measurements)
    model = there.model(_last_kept(there))
    assert {each.device.type for each in model.state_dict().values()} == {"cpu"}
    assert not any(isinstance(each, FarTensor) for each in model.state_dict().values())


def test_a_model_that_its_user_has_there_is_searched_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = _searched(tmp_path, "cpu")
    monkeypatch.setattr(placing, "device_of", lambda wanted, place=0: torch.device("cpu"))
    with far_device():
        model = copied_to(_network(), FAR)
        there = rs.compress(
            model, train=DATA, selection=DATA[:2], test=DATA[2:], trials=3, name="auto", store=tmp_path / "auto.sqlite"
        )
        assert {each.device for each in model.parameters()} == {FAR}
        assert {each.device.type for each in there.model(_last_kept(there)).parameters()} == {"cpu"}
    for one, other in zip(_rows(here), _rows(there), strict=True):
        assert other.point == one.point
        assert other.measurements == pytest.approx(one.measurements)


def _shared(task: rs.Task, **more: Any) -> TrialContext:
    """What a driver on Ray shares with its workers."""
    model = task.model()
    inventory = take_inventory(model, task.example())
    plugins = {"svd": load_plugin("svd")}
    bases = {name: DirectBases(weight_of(model, name)) for name in inventory.layers}
    return TrialContext(task, model, inventory.layers, plugins, bases.__getitem__, TrainingSettings(epochs=0), **more)


def test_a_worker_on_ray_computes_on_the_gpu_that_is_set_aside_for_it() -> None:
    task = rs.Supervised(_network(), DATA, DATA[:2])
    shared = _shared(task, examples=task.examples(), sequential=LossPass(task, 1))
    with far_device():
        found = ray_cluster.on_the_device_given(shared, LaunchSettings(on="ray", gpus_per_trial=0.5))
        assert {each.device for each in found.dense.parameters()} == {FAR}
        assert found.dense is found.task.model()  # a GPU that several workers share has it once for each
        assert {each.device for each in found.examples} == {FAR}
        assert found.sequential is not None
        assert found.sequential.task is found.task
        assert next(iter(found.task.training()))[0].device == FAR


def test_a_worker_on_ray_without_one_computes_on_the_cpu() -> None:
    shared = _shared(rs.Supervised(_network(), DATA, DATA[:2]))
    assert ray_cluster.on_the_device_given(shared, LaunchSettings(on="ray")) is shared


@pytest.mark.parametrize(
    ("launch", "said"),
    [({"device": "cuda"}, "gpus_per_trial = 0"), ({"device": "cuda:1", "gpus_per_trial": 1}, "Ray chooses the GPU")],
)
def test_ray_gives_gpus_out_itself(launch: dict[str, Any], said: str) -> None:
    settings = LaunchSettings(on="ray", **launch)
    with pytest.raises(LaunchError, match=said), ray_cluster.on_cluster(None, None, settings):  # type: ignore[arg-type]
        pass


def test_an_allocated_model_is_on_the_cpu() -> None:
    task = rs.Supervised(_network(), DATA, DATA[:2])
    study = Study.from_python({"study": {"name": "there"}, "task": {"factory": "(in memory)"}})
    with far_device():
        found = allocate_model(study, {"macs": "60%"}, task)
        assert {each.device.type for each in found.model.state_dict().values()} == {"cpu"}
        assert {each.device.type for each in found.problem.task.model().state_dict().values()} == {"cpu"}
    assert found.measurements["macs"] <= 0.6 * found.dense["macs"]


def test_a_training_there_goes_on_from_a_checkpoint_that_is_on_the_cpu() -> None:
    task = rs.Supervised(_network(), DATA, DATA[:2])
    quick = TrainingSettings(epochs=2, optimizer="adamw", learning_rate=1e-2, average=0.9)
    with far_device(), seeded(3):
        moved = on_device(task, FAR)
        straight = Trainer(moved, copied(moved.model()), FineTuning(quick))
        straight.advance(1.5)
        data = straight.kept().to_bytes()
        straight.advance(2)
        kept = Checkpoint.from_bytes(data)
        assert {each.device.type for part in kept.parts.values() for each in part.values()} == {"cpu"}
        model = copied(moved.model())
        model.load_state_dict(kept.part(MODEL))
        restored = Trainer.restored(moved, model, FineTuning(quick), kept)
        restored.advance(2)
        one, other = (each.kept().parts for each in (straight, restored))
        for part, tensors in one.items():
            assert all(torch.equal(tensor.cpu(), other[part][name].cpu()) for name, tensor in tensors.items()), part

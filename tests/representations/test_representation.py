"""A network that stands for one signal is searched, reported, packed, and rendered at any resolution."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import rank_search as rs
from rank_search.cli.main import app
from rank_search.errors import TaskError
from rank_search.report.contents import contents

R = rs.representations


def picture(size: int = 24) -> R.Signal:
    """Soft waves, 0 to 1."""
    down, across = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    waves = [torch.sin(5 * down + 3 * across), torch.cos(6 * across), torch.sin(4 * down * across)]
    return R.Signal((torch.stack(waves, -1) + 1) / 2, is_image=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    kept = tmp_path_factory.mktemp("kept") / "net.safetensors"
    return R.trained_once(lambda: R.siren(2, 3, 16, 2), picture(), kept, steps=150, batch=None)


def tables(folder: Path, **more: object) -> dict[str, object]:
    return {
        "study": {"name": "waves", "trials": 4},
        "task": {"factory": "(in memory)"},
        "search": {
            "objectives": [{"name": "psnr", "direction": "maximize"}, "bits_per_sample"],
            "entropy": {"low": 0.01, "high": 1.0},
            "seeds": {"allocations": 1},
        },
        "training": {"epochs": 4, "learning_rate": 1e-3},
        "coding": {"rounding": "grid"},
        "folder": folder,
        **more,
    }


@pytest.fixture(scope="module")
def searched(trained: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> tuple[rs.Result, Path]:
    folder = tmp_path_factory.mktemp("searched")
    task = rs.Representation(trained, picture())
    study = rs.Study.model_validate(tables(folder))
    return rs.run_study(study, task=task, store=str(folder / "s.sqlite")), folder / "s.sqlite"


def test_a_network_is_trained_once_and_kept(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    kept = tmp_path / "deep" / "net.safetensors"
    first = R.trained_once(lambda: R.siren(2, 3, 16, 2), picture(), kept, steps=30, batch=64)
    again = R.trained_once(lambda: R.siren(2, 3, 16, 2), picture(), kept, steps=10**9)
    other = R.trained_once(lambda: R.siren(2, 3, 16, 2), picture(), steps=30, batch=64)
    assert torch.equal(torch.get_rng_state(), before)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        assert torch.equal(tensor, other.state_dict()[name])


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    kept = tmp_path / "net.safetensors"
    R.trained_once(lambda: R.siren(2, 3, 16, 2), picture(), kept, steps=2)
    with pytest.raises(TaskError, match="Delete it"):
        R.trained_once(lambda: R.siren(2, 3, 8, 2), picture(), kept)
    kept.write_bytes(b"none")
    with pytest.raises(TaskError, match="Delete it"):
        R.trained_once(lambda: R.siren(2, 3, 16, 2), picture(), kept)


@pytest.mark.parametrize(("make", "rate"), [(R.siren, 1e-3), (R.fourier, 5e-3), (R.grid, 1e-2)])
def test_networks_learn_the_signal(make: object, rate: float) -> None:
    assert callable(make)
    network = R.trained_once(lambda: make(2, 3), picture(), steps=100, batch=None, learning_rate=rate)
    assert R.psnr(picture(), R.render(network, (24, 24))) > 18


@pytest.mark.parametrize(
    ("make", "sizes"), [(R.siren, (30,)), (R.fourier, (30,)), (R.grid, (30,)), (R.grid, (3, 4, 5))]
)
def test_networks_are_packed_for_any_number_of_coordinates(
    make: object, sizes: tuple[int, ...], tmp_path: Path
) -> None:
    assert callable(make)
    torch.manual_seed(0)
    network = make(len(sizes), 2).eval()
    packed = rs.pack_model(network, [R.coordinates(sizes)], example=R.coordinates(sizes)[:1])
    packed.write(tmp_path / "n.rsz")
    twice = tuple(2 * size for size in sizes)
    found = R.render(rs.load(tmp_path / "n.rsz"), twice)
    assert found.shape == (*twice, 2)
    assert torch.allclose(found, R.render(packed.model, twice), atol=1e-6)


def test_a_grid_takes_a_table_between_its_corners() -> None:
    features = R.FeatureGrid(2, (2,), 1)
    with torch.no_grad():
        features.tables[0].copy_(torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]))
        found = features(torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [0.0, 0.0]]))
    assert found[:, 0].tolist() == [0.0, 1.0, 2.0, 1.5]


def test_two_resolutions_are_of_the_same_picture() -> None:
    fine, coarse = R.coordinates((4, 2)), R.coordinates((2, 1))
    assert torch.allclose(fine.reshape(2, 2, 2, 2).mean((1, 2)), coarse)


def test_the_loss_is_a_share_of_the_variance_whatever_the_scale(trained: nn.Module) -> None:
    values = picture().values
    flat = nn.Linear(2, 3)
    nn.init.zeros_(flat.weight)
    for scale in (1.0, 1e3):
        signal = R.Signal(values * scale, 0.0, scale)
        with torch.no_grad():
            flat.bias.copy_(signal.values.mean((0, 1)))
        task = rs.Representation(flat, signal)
        (batch,) = task.training()
        assert float(task.loss(flat, batch).detach()) == pytest.approx(1.0, rel=1e-4)


def test_a_pass_has_each_coordinate_once_in_an_order_of_its_own(trained: nn.Module) -> None:
    task = rs.Representation(trained, picture(), batch=100)
    torch.manual_seed(1)
    first, second = (torch.cat([inputs for inputs, _ in task.training()]) for _ in range(2))
    assert not torch.equal(first, second)
    assert sorted(first.tolist()) == sorted(second.tolist()) == sorted(R.coordinates((24, 24)).tolist())


def test_a_network_of_other_channels_is_refused() -> None:
    with pytest.raises(TaskError, match="gives the shape"):
        rs.Representation(R.siren(2, 1), picture())
    with pytest.raises(TaskError, match="does not take coordinates of 2 dimensions"):
        rs.Representation(R.siren(3, 3), picture())
    with pytest.raises(TaskError, match="at least one"):
        rs.Representation(R.siren(2, 3), picture(), batch=0)


def test_bits_of_a_sample_are_those_of_the_coded_model(searched: tuple[rs.Result, Path]) -> None:
    result, _ = searched
    assert result.complete
    with rs.Store.open(result.store) as store:
        rows = store.trials(result.study)
    for measured in (result.study.dense, *(row.measurements for row in rows)):
        assert measured["bits_per_sample"] == measured["bits"] / 24**2
    assert not any(name.startswith("test_") for row in rows for name in row.measurements)
    coded = [row.measurements for row in rows if row.point.penalties["entropy"] > 0]
    assert coded
    assert all(each["bits"] < result.study.dense["bits"] / 4 for each in coded), (coded, result.study.dense)
    assert max(each["psnr"] for each in coded) > result.study.dense["psnr"] - 6, (coded, result.study.dense)


def test_what_was_measured_is_said(searched: tuple[rs.Result, Path]) -> None:
    result, path = searched
    assert result.untested == ""
    for verb in ("front", "check"):
        said = CliRunner().invoke(app, [verb, str(path), "waves"])
        assert said.exit_code == 0
        assert "a signal of 576 samples" in said.output
    rows = CliRunner().invoke(app, ["front", str(path), "waves", "--format", "json"])
    assert json.loads(rows.stdout)


def test_a_report_has_the_curves_of_codecs(searched: tuple[rs.Result, Path]) -> None:
    _, path = searched
    with rs.Store.open(path) as store:
        shown = contents(store, str(path), "waves")
    names = [each["name"] for each in shown["curves"]]
    assert names[:2] == ["JPEG", "WebP"]
    for each in shown["curves"]:
        assert each["values"]["bits_per_sample"] == sorted(each["values"]["bits_per_sample"])
    assert "576 samples" in shown["study"]["signal"]
    page = path.with_name("r.html")
    assert CliRunner().invoke(app, ["report", str(path), "waves", "-o", str(page)]).exit_code == 0
    assert "576 samples" in page.read_text(encoding="utf-8")


def test_a_member_is_one_small_file_that_renders(
    searched: tuple[rs.Result, Path], trained: nn.Module, tmp_path: Path
) -> None:
    result, path = searched
    member = result.front[-1]
    with rs.Store.open(path) as store:
        packed = rs.pack_trial(store, "waves", member.number, tmp_path / "w.rsz", rs.Representation(trained, picture()))
    assert sum(packed.sizes().values()) - len(packed.payload) < 220
    network = rs.load(tmp_path / "w.rsz")
    assert R.psnr(picture(), R.render(network, (24, 24))) == pytest.approx(member.measurements["psnr"], abs=1e-3)
    assert R.render(network, (50, 31)).shape == (50, 31, 3)

"""Several signals, a network for each, that share weights: trained, searched, packed and rendered as one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import rank_search as rs
from rank_search.errors import TaskError

R = rs.representations
COUNT, SIZE = 3, 12


def frames(size: int = SIZE) -> list[R.Signal]:
    """Soft waves that move."""
    down, across = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    return [R.Signal(_wave(down, across + 0.1 * place), is_image=True) for place in range(COUNT)]


def _wave(down: Tensor, across: Tensor) -> Tensor:
    waves = [torch.sin(5 * down + 3 * across), torch.cos(6 * across), torch.sin(4 * down * across)]
    return (torch.stack(waves, -1) + 1) / 2


@pytest.fixture(scope="module")
def trained() -> R.Several:
    network = R.trained_once(
        lambda: R.several(R.siren(2, 3, 16, 2), COUNT), frames(), steps=150, batch=None, learning_rate=1e-2
    )
    assert isinstance(network, R.Several)
    return network


@pytest.fixture(scope="module")
def searched(trained: R.Several, tmp_path_factory: pytest.TempPathFactory) -> tuple[rs.Result, Path]:
    folder = tmp_path_factory.mktemp("several")
    tables = {
        "study": {"name": "waves", "trials": 1},
        "task": {"factory": "(in memory)"},
        "layers": {"factorizations": ["shared-plus-own"], "tie": [["networks.*.{layer}"]]},
        "search": {
            "objectives": [{"name": "psnr", "direction": "maximize"}, "bits_per_sample"],
            "entropy": {"low": 0.01, "high": 0.5},
            "seeds": {
                "dense": False,
                "points": [
                    {
                        "name": "shared",
                        "entropy": 0.03,
                        "layers": {"networks.*": {"factorization": "shared-plus-own", "rank": 1}},
                    }
                ],
            },
        },
        "training": {"epochs": 4, "learning_rate": 1e-3},
        "coding": {"rounding": "grid"},
        "folder": folder,
    }
    task = rs.Representation(trained, frames())
    return rs.run_study(rs.Study.model_validate(tables), task=task, store=str(folder / "s.sqlite")), folder


def test_networks_that_are_trained_together_differ_in_their_biases_alone(trained: R.Several) -> None:
    first, *others = (dict(each.named_parameters()) for each in trained.networks)
    for other in others:
        for name, parameter in other.items():
            assert torch.equal(parameter, first[name]) is (parameter.dim() > 1), name
    apart = R.trained_once(lambda: R.several(R.siren(2, 3, 8, 2), COUNT), frames(), steps=5, batch=None, shared=0.0)
    assert isinstance(apart, R.Several)
    weights = [each.get_parameter("0.weight") for each in apart.networks]
    assert not torch.equal(weights[0], weights[1])


def test_decibels_are_of_all_samples_and_clipped(trained: R.Several) -> None:
    task = rs.Representation(trained, frames())
    assert task.signal_samples() == COUNT * SIZE**2
    with torch.no_grad():
        found = task.evaluate(trained, task.selection())["psnr"]
    rendered = R.render(trained, (SIZE, SIZE))
    assert rendered.shape == (SIZE, SIZE, COUNT, 3)
    errors = [10 ** (-R.psnr(each, rendered[..., place, :]) / 10) for place, each in enumerate(frames())]
    assert 10 ** (-found / 10) == pytest.approx(sum(errors) / COUNT)
    assert found > 18


def test_the_loss_of_each_signals_means_is_one() -> None:
    """As of one signal: the squared error as a share of the variance about each signal's own means."""
    signals = [R.Signal(each.values + place, -1, 5) for place, each in enumerate(frames())]
    means = R.several(torch.nn.Linear(2, 3), COUNT)
    for network, signal in zip(means.networks, signals, strict=True):
        network.get_parameter("weight").data.zero_()
        network.get_parameter("bias").data.copy_(signal.values.mean((0, 1)))
    task = rs.Representation(means, signals)
    (batch,) = task.training()
    assert float(task.loss(means, batch).detach()) == pytest.approx(1.0, rel=1e-4)


def test_what_is_no_set_of_signals_is_refused(trained: R.Several) -> None:
    with pytest.raises(TaskError, match=r"shapes \(12, 12, 3\), \(10, 10, 3\); several signals have one shape"):
        rs.Representation(trained, [*frames()[:2], frames(10)[0]])
    with pytest.raises(TaskError, match="no signal"):
        rs.Representation(trained, [])
    with pytest.raises(TaskError, match="there are 2 signals of 3 channels"):
        rs.Representation(trained, frames()[:2])
    with pytest.raises(TaskError, match="gives the shape"):
        rs.Representation(trained, frames()[0])


def test_files_of_codecs_are_added_up() -> None:
    signals = frames()
    together, (first, *others) = R.codec_curves(signals, (50,)), [R.codec_curves(each, (50,)) for each in signals]
    for name, (point,) in together.items():
        parts = [first[name][0], *(each[name][0] for each in others)]
        assert point["bits"] == sum(each["bits"] for each in parts)
        assert point["bits_per_sample"] == point["bits"] / (COUNT * SIZE**2)
        assert 10 ** (-point["psnr"] / 10) == pytest.approx(sum(10 ** (-each["psnr"] / 10) for each in parts) / COUNT)


def test_they_are_searched_as_a_pool_whose_weight_is_coded_once(
    searched: tuple[rs.Result, Path], trained: R.Several
) -> None:
    result, _ = searched
    assert result.complete
    with rs.Store.open(result.store) as store:
        (row,) = store.trials(result.study)
        model = rs.build_model(store, "waves", row.number, rs.Representation(trained, frames()))
    assert row.measurements["bits_per_sample"] == row.measurements["bits"] / (COUNT * SIZE**2)
    assert {each.factorization for each in row.point.layers.values()} == {"shared-plus-own"}
    assert row.measurements["params"] == sum(each.numel() for each in model.parameters())


def test_they_are_one_file_that_renders_each_at_any_resolution(
    searched: tuple[rs.Result, Path], trained: R.Several, tmp_path: Path
) -> None:
    result, _ = searched
    with rs.Store.open(result.store) as store:
        (row,) = store.trials(result.study)
        packed = rs.pack_trial(store, "waves", row.number, tmp_path / "w.rsz", rs.Representation(trained, frames()))
    assert 8 * len(packed.payload) == row.measurements["bits"]
    network = rs.load(tmp_path / "w.rsz")
    assert R.render(network, (30, 20)).shape == (30, 20, COUNT, 3)
    task = rs.Representation(trained, frames())
    with torch.no_grad():
        found = task.evaluate(network, task.selection())["psnr"]
    assert found == pytest.approx(row.measurements["psnr"], abs=1e-3)

"""Small networks packed as they are: exact bytes, close outputs, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import ExportError, TaskError, TrialError
from rank_search.layers import forward, take_inventory
from rank_search.quantization.observed import moments
from rank_search.quantization.sensitivity import sensitivity


def network(seed: int = 0) -> nn.Module:
    """Convolutions with and without a batch norm, and a linear layer."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 9, 5),
    )
    with torch.no_grad():
        for batch in data():
            model(batch)
    return model.eval()


def data(batches: int = 3, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(32, 2, 6, 6, generator=generator) for _ in range(batches)]


def lost(model: nn.Module, packed: nn.Module) -> float:
    """Relative squared error of the outputs on fresh data."""
    with torch.no_grad():
        (x,) = data(1, seed=9)
        before, after = model(x), packed(x)
    return float((before - after).square().sum() / before.square().sum())


def test_packed_model_is_exactly_what_its_bytes_decode_to() -> None:
    packed = rs.pack_model(network(), data(), example=data()[0][:1])
    state = packed.model.state_dict()
    decoded = rs.decode(packed.payload)
    assert decoded.keys() == state.keys()
    assert all(torch.equal(decoded[name], state[name]) for name in state)
    assert all(
        torch.equal(grid.values(grid.round(state[name]), state[name].dtype), state[name])
        for name, grid in packed.grids.items()
    )
    assert not packed.model.training
    assert not any(parameter.requires_grad for parameter in packed.model.parameters())


def test_a_larger_slope_is_a_smaller_file_and_a_larger_error() -> None:
    model = network()
    found = [rs.pack_model(model, data(), example=data()[0][:1], slope=slope) for slope in (1e-4, 1e-2, 1.0)]
    assert all(one.size > other.size for one, other in pairwise(found))
    errors = [lost(model, each.model) for each in found]
    assert all(one < other for one, other in pairwise(errors))
    assert errors[0] < 0.01


def test_packing_leaves_the_given_model_unchanged() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rs.pack_model(model, data(), example=data()[0][:1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_packing_to_a_size_keeps_it_and_nearly_uses_it() -> None:
    packed = rs.pack_model(network(), data(), example=data()[0][:1], size=1000)
    assert 800 < packed.size <= 1000


def test_packing_the_same_model_and_data_gives_the_same_bytes() -> None:
    first, second = (rs.pack_model(network(), data(), example=data()[0][:1]).payload for _ in range(2))
    assert first == second


def test_packing_without_data_uses_random_inputs() -> None:
    model = network()
    packed = rs.pack_model(model, example=data()[0][:1], slope=1e-4)
    assert lost(model, packed.model) < 0.02


def test_parameters_of_other_modules_are_rounded_by_how_far_the_outputs_feel_them() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.scale = nn.Linear(4, 4), nn.Parameter(torch.tensor([0.5, 1.3, 0.7, 2.1]))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.scale  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model, batch = Scaled(), torch.randn(64, 4)
    coarse, fine = (rs.pack_model(model, [batch], example=batch[:1], slope=slope) for slope in (1.0, 1e-4))
    assert coarse.grids.keys() == {"layer.weight", "layer.bias", "scale"}
    scales = [each.model.get_parameter("scale") for each in (coarse, fine)]
    far, near = (float((scale - model.scale).detach().abs().max()) for scale in scales)
    assert 0 < near < 0.01 < far


def test_packed_model_is_loaded_without_its_class(tmp_path: Path) -> None:
    packed = rs.pack_model(network(), data(), example=data()[0][:1])
    packed.write(tmp_path / "small.rsz")
    with torch.no_grad():
        assert torch.allclose(rs.load(tmp_path / "small.rsz")(data()[0]), packed.model(data()[0]), atol=1e-5)
    with pytest.raises(ExportError, match="already exists"):
        packed.write(tmp_path / "small.rsz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slope": 0.0}, "slope is 0.0; it must be a positive number"),
        ({"size": -3}, "size is -3; it must be a positive number"),
        ({"slope": 1.0, "size": 9}, "Both a slope and a size"),
        ({"size": 20}, "does not fit into 20 bytes"),
    ],
)
def test_pack_model_refuses_impossible_arguments(changes: dict[str, float], message: str) -> None:
    with pytest.raises(TrialError, match=message):
        rs.pack_model(network(), data(1), example=data()[0][:1], **changes)  # type: ignore[arg-type]


def test_calibration_needs_batches_that_the_model_takes() -> None:
    with pytest.raises(TaskError, match="no batch to calibrate with"):
        rs.pack_model(network(), [], example=data()[0][:1])
    with pytest.raises(TaskError, match="floating-point"):
        rs.pack_model(nn.Sequential(nn.Embedding(4, 2), nn.Linear(2, 2)), example=torch.tensor([[1]]))
    dead = nn.Sequential(nn.Linear(2, 2))
    nn.init.zeros_(dead[0].weight)
    nn.init.zeros_(dead[0].bias)
    with pytest.raises(TaskError, match="outputs are all zero on the calibration batches"):
        rs.pack_model(dead, [torch.ones(2, 2)], example=torch.ones(1, 2))


# ---- what is observed ------------------------------------------------------------------------------------


def test_moments_are_centred_and_of_both_networks() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    batches = [torch.randn(20, 3), torch.randn(30, 3)]
    now = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    layer = take_inventory(model, batches[0][:1]).layers["2"]
    found = moments(model, now, layer, forward, batches)
    with torch.no_grad():
        x, z = (each[:2](torch.cat(batches)).double() for each in (model, now))
    (block,) = found.blocks
    assert found.count == 50
    assert torch.allclose(found.was, x.mean(0), atol=1e-6)
    assert torch.allclose(found.mean, z.mean(0), atol=1e-6)
    assert torch.allclose(block.seen, torch.cov(z.T, correction=0), atol=1e-6)
    assert torch.allclose(block.cross, (x - x.mean(0)).T @ (z - z.mean(0)) / 50, atol=1e-6)


def test_sensitivity_is_the_mean_square_of_the_jacobian() -> None:
    """Of a linear network it is known: y₁ = W₁x, z = W₂y₁, so channel c is felt as ‖W₂[:, c]‖² / E‖z‖²."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 6, bias=False))
    x = torch.randn(4000, 3)
    found = sensitivity(model, ["0", "1"], forward, [x])
    with torch.no_grad():
        square = float(model(x).square().sum(1).mean())
        expected = model[1].weight.double().square().sum(0) / square
    assert torch.allclose(found.outputs["0"], expected, rtol=0.1)
    assert torch.allclose(found.outputs["1"], torch.ones(6).double() / square, rtol=0.1)
    assert found.parameters["1.weight"] > 0
    assert all(parameter.grad is None for parameter in model.parameters())

"""The second moment of the loss's gradients at the layers' outputs, against gradients kept by hand."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.layers import Layer
from rank_search.tasks import LossAlone, Supervised, input_moments, loss_moments


class Net(nn.Module):
    """A convolution that runs twice, what follows writing into its output; linear layers on positions; a dead end."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding="same")
        self.norm = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 4)
        self.aside = nn.Linear(3, 2)
        self.idle = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.twice(x), inplace=True)
        x = self.twice(self.norm(x)).flatten(2).transpose(1, 2)
        self.aside(x)
        return self.fc(x).mean(1)  # type: ignore[no-any-return]


LAYERS = {name: Layer.of(getattr(Net(), name), name=name) for name in ("twice", "fc", "aside", "idle")}


def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net().eval()


def pairs(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    drawn = torch.Generator().manual_seed(1)
    return [(torch.randn(5, 3, 6, 4, generator=drawn), torch.randint(4, (5,), generator=drawn)) for _ in range(count)]


def task(model: nn.Module) -> Supervised:
    return Supervised(model, pairs(), pairs(), pairs())


def by_hand(model: Net, batches: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Every output kept in a forward written out, and the gradient that is left in it; averaged over the batches."""
    found = {"twice": torch.zeros(3, 3).double(), "fc": torch.zeros(4, 4).double()}
    for x, y in batches:
        first = model.twice(x)
        second = model.twice(model.norm(first.relu()))
        last = model.fc(second.flatten(2).transpose(1, 2))
        g1, g2, g3 = torch.autograd.grad(F.cross_entropy(last.mean(1), y), (first, second, last))
        for gradient in (g1, g2):
            for image in gradient:
                for position in image.flatten(1).T:
                    found["twice"] += torch.outer(position, position) / len(batches)
        for position in g3.flatten(0, 1):
            found["fc"] += torch.outer(position, position) / len(batches)
    return found


@pytest.mark.parametrize("batches", [1, 2, 9])
@pytest.mark.parametrize("frozen", [True, False])
def test_the_moment_is_that_of_the_gradients_at_every_position(batches: int, frozen: bool) -> None:
    model = net()
    wanted = by_hand(model, pairs()[:batches])
    model.requires_grad_(not frozen)
    found = loss_moments(task(model), model, LAYERS, batches).gradients
    assert found.keys() == {"twice", "fc"}
    for name, moment in wanted.items():
        torch.testing.assert_close(found[name].double(), moment, rtol=1e-4, atol=1e-9)


def test_the_inputs_are_those_of_the_plain_pass_bit_by_bit() -> None:
    model = net()
    found, plain = loss_moments(task(model), model, LAYERS, 2).inputs, input_moments(task(model), model, LAYERS, 2)
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_layers_that_no_gradient_reaches_are_named(caplog: pytest.LogCaptureFixture) -> None:
    model = net()
    with caplog.at_level(logging.WARNING):
        found = loss_moments(task(model), model, LAYERS, 2)
    assert "aside" in found.inputs
    assert "aside" not in found.gradients
    assert "no usable gradient at the outputs of aside:" in caplog.text


def test_the_model_is_as_before() -> None:
    model = net().train()
    model.norm.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loss_moments(task(model), model, LAYERS, 3)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(each.grad is None for each in model.parameters())
    frozen = {name for name, each in model.named_parameters() if not each.requires_grad}
    assert frozen == {"norm.weight", "norm.bias"}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_loss_without_a_gradient_is_refused_and_nothing_is_left_behind() -> None:
    model = net()

    def constant(model: nn.Module, batch: Any) -> Tensor:
        return model(batch[0]).detach().sum()  # type: ignore[no-any-return]

    with pytest.raises(TaskError, match="The loss does not depend on what any layer gives"):
        loss_moments(LossAlone(model, pairs()[0][0], pairs(), constant), model, LAYERS, 1)
    assert all(each.requires_grad for each in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())

"""The inventory finds every weighted module, and says why it leaves one alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from rank_search.errors import LayerError, TaskError
from rank_search.layers import count_params, take_inventory
from rank_search.layers.costs import count_macs


class Zoo(nn.Module):
    """One module of each kind that the inventory has to tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding="same", padding_mode="reflect", bias=False)
        self.strided = nn.Conv2d(8, 8, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 1))
        self.grouped = nn.Conv2d(8, 8, 3, groups=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.transposed = nn.ConvTranspose2d(8, 8, 2)
        self.spread = nn.ConvTranspose2d(8, 8, 2, groups=4)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))
        self.shared = nn.Conv2d(8, 8, 1)
        self.again = self.shared
        self.unused = nn.Linear(4, 4)
        self.first = nn.Linear(8, 10)
        self.second = nn.Linear(10, 8)
        self.third = nn.Linear(8, 10)
        self.third.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.again(self.shared(self.normed(self.strided(self.stem(x)))))
        x = self.spread(self.transposed(self.depthwise(self.grouped(x)))).mean((2, 3))
        return self.third(self.second(self.first(x)))


EXAMPLE = torch.zeros(1, 3, 8, 8)


def test_every_weighted_module_is_either_a_layer_or_skipped_with_its_reason() -> None:
    inventory = take_inventory(Zoo(), EXAMPLE)
    layers = ["stem", "strided", "grouped", "depthwise", "transposed", "shared", "first", "second"]
    assert list(inventory.layers) == layers
    assert [inventory.layers[name].groups for name in ("stem", "grouped", "depthwise")] == [1, 2, 8]
    assert [tie.name for tie in inventory.layers["first"].ties] == ["third"]
    reasons = {skipped.name: skipped.reason for skipped in inventory.skipped}
    assert "transposed convolution with 4 groups of several input channels" in reasons["spread"]
    assert "never called" in reasons["unused"]
    assert set(reasons) == {"spread", "normed", "unused"}


def test_a_parametrized_weight_is_skipped() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    (skipped,) = take_inventory(model, torch.zeros(1, 4)).skipped
    assert "subclass" in skipped.reason or "computed" in skipped.reason


def test_a_shared_module_is_one_layer_with_aliases_and_every_input() -> None:
    shared = take_inventory(Zoo(), EXAMPLE).layers["shared"]
    assert shared.aliases == ("again",)
    assert len(shared.inputs) == 2


def test_geometry_is_read_off() -> None:
    layers = take_inventory(Zoo(), EXAMPLE).layers
    assert layers["stem"].padding == ((1, 1), (1, 1))
    assert layers["stem"].padding_mode == "reflect"
    assert not layers["stem"].bias
    assert layers["strided"].stride == (2, 1)
    assert layers["strided"].inputs == ((1, 8, 8, 8),)


def test_the_costs_of_layers_and_rest_add_up_to_the_model() -> None:
    model = Zoo().eval()
    inventory = take_inventory(model, EXAMPLE)
    assert inventory.dense.params == count_params(model)
    assert inventory.dense.macs == count_macs(model, [EXAMPLE])
    used = [user.name for layer in inventory.layers.values() for user in layer.users]
    own = {parameter for name in used for parameter in model.get_submodule(name).parameters()}
    assert inventory.rest.params == count_params(model) - sum(parameter.numel() for parameter in own)


def test_a_skipped_module_has_its_own_cost() -> None:
    inventory = take_inventory(Zoo(), EXAMPLE, exclude=["grouped"])
    grouped = next(each for each in inventory.skipped if each.name == "grouped")
    assert grouped.params == 8 * 4 * 9 + 8
    assert grouped.macs == 8 * 4 * 9 * 4 * 8  # on a map of 4 × 8


def test_rules_choose_by_glob() -> None:
    inventory = take_inventory(Zoo(), EXAMPLE, include=["s*"], exclude=["stem"])
    assert list(inventory.layers) == ["strided", "shared", "second"]
    reasons = {skipped.name: skipped.reason for skipped in inventory.skipped}
    assert "exclude" in reasons["stem"]
    assert "include" in reasons["grouped"]


def test_a_rule_that_matches_nothing_is_refused() -> None:
    with pytest.raises(LayerError, match=r"stemm.*stem, strided"):
        take_inventory(Zoo(), EXAMPLE, exclude=["stemm"])


def test_nan_weights_name_the_layer() -> None:
    model = Zoo()
    with torch.no_grad():
        model.second.weight[0, 0] = torch.nan
    with pytest.raises(LayerError, match=r"second\.weight"):
        take_inventory(model, EXAMPLE)


def test_a_model_that_does_not_run_on_the_example() -> None:
    with pytest.raises(TaskError, match="forward raised"):
        take_inventory(Zoo(), torch.zeros(1, 4, 8, 8))


def test_several_inputs() -> None:
    model = Two()
    inventory = take_inventory(model, (torch.zeros(1, 4), torch.zeros(1, 4)))
    assert inventory.layers["inner"].inputs == ((1, 4), (1, 4))
    assert inventory.dense.macs == 2 * 4 * 6


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.inner(a) + self.inner(b)


def test_the_model_is_left_as_it_was() -> None:
    model = Zoo().train()
    before = copy.deepcopy(model.state_dict())
    take_inventory(model, EXAMPLE)
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_bare_layer_cannot_replace_itself() -> None:
    (skipped,) = take_inventory(nn.Linear(3, 3), torch.zeros(1, 3)).skipped
    assert "Sequential" in skipped.reason

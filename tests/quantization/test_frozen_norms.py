"""Batch norms that are frozen on purpose keep their statistics; the others take them again."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rank_search.layers import DirectBases, load_plugin, take_inventory
from rank_search.point import Choice, Point, State
from rank_search.quantization import batch_statistics, reestimate_batchnorm
from rank_search.quantization.batchnorm import learning_norms
from rank_search.tasks import Supervised
from rank_search.training import TrainingSettings
from rank_search.trials import TrialContext, run_trial

BATCHES = [
    (torch.randn(32, 6, generator=torch.Generator().manual_seed(each)) * 3 + 2, torch.zeros(32, dtype=torch.long))
    for each in range(3)
]


class Net(nn.Module):
    """Two norms, the first of which may be frozen."""

    def __init__(self, freeze: Callable[[Net], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.frozen = nn.Linear(6, 8), nn.BatchNorm1d(8)
        self.b, self.other = nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.stays = False
        self.frozen.running_mean.normal_()  # type: ignore[union-attr]
        freeze(self)

    def train(self, mode: bool = True) -> Net:
        super().train(mode)
        if self.stays:
            self.frozen.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.b(self.frozen(self.a(x)).relu()))  # type: ignore[no-any-return]


FREEZES: dict[str, Callable[[Net], object]] = {
    "stays in eval": lambda net: setattr(net, "stays", True),
    "momentum 0": lambda net: setattr(net.frozen, "momentum", 0.0),
    "no gradient": lambda net: net.frozen.requires_grad_(False),
    "its train() does nothing": lambda net: setattr(net.frozen.eval(), "train", lambda mode=True: net.frozen),
}


@pytest.mark.parametrize("freeze", FREEZES.values(), ids=FREEZES.keys())
def test_a_frozen_norm_keeps_its_statistics(freeze: Callable[[Net], object]) -> None:
    net = Net(freeze).eval()
    before = copy.deepcopy(net.state_dict())
    assert learning_norms(net) == [net.other]
    reestimate_batchnorm(Supervised(net, BATCHES, BATCHES, BATCHES), net)
    changed = {name for name, each in net.state_dict().items() if not torch.equal(each, before[name])}
    assert changed == {"other.running_mean", "other.running_var", "other.num_batches_tracked"}
    assert not any(module.training for module in net.modules())
    with batch_statistics(net):
        assert [norm.training for norm in (net.frozen, net.other)] == [False, True]


def test_a_model_without_any_gradient_has_no_norm_frozen_by_it() -> None:
    net = Net(lambda net: net.requires_grad_(False))
    assert learning_norms(net) == [net.frozen, net.other]


def test_looking_for_frozen_norms_changes_no_mode() -> None:
    net = Net(FREEZES["stays in eval"]).eval()
    net.b.train()
    modes = [module.training for module in net.modules()]
    learning_norms(net)
    assert [module.training for module in net.modules()] == modes


def test_no_statistics_are_reestimated_on_zero_batches() -> None:
    net = Net(lambda net: None).train()
    before = copy.deepcopy(net.state_dict())
    reestimate_batchnorm(Supervised(net, BATCHES, BATCHES, BATCHES), net, batches=0)
    assert all(torch.equal(each, before[name]) for name, each in net.state_dict().items())
    assert not net.training


@pytest.mark.parametrize("freeze", [FREEZES["stays in eval"], FREEZES["momentum 0"]])
def test_a_trial_measures_a_frozen_norm_as_it_is(freeze: Callable[[Net], object]) -> None:
    net = Net(freeze)
    net.other = nn.Identity()  # type: ignore[assignment]
    net.eval()
    batches = [(x, net(x).argmax(1)) for x, _ in BATCHES]
    layers = take_inventory(net, batches[0][0][:1]).layers
    bench = TrialContext(
        Supervised(net, batches, batches, batches),
        net,
        layers,
        {"svd": load_plugin("svd")},
        lambda name: DirectBases(net.get_submodule(name).get_parameter("weight")),
        TrainingSettings(epochs=0),
    )
    outcome = run_trial(bench, Point({"a": Choice("svd", {"rank": 6})}), 0)
    assert outcome.state is State.COMPLETE
    assert outcome.measurements["error"] == 0

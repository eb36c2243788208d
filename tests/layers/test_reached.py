"""A layer is replaced however the model reaches it, or it is skipped with the reason: nothing dense runs unseen."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.layers import (
    DirectBases,
    Factorization,
    Inventory,
    count_params,
    factorize,
    layer_cost,
    load_plugin,
    skeleton,
    take_inventory,
)
from rank_search.layers.costs import count_macs
from rank_search.point import Choice, Point

SVD = load_plugin("svd")
X = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))

Reach = Callable[["Net"], Callable[[Tensor], Tensor]]


class Net(nn.Module):
    """Two layers; how forward reaches the first one is what is tried."""

    def __init__(self, reach: Reach) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.out = nn.Linear(6, 8), nn.Linear(8, 2)
        self.kept: Any = None
        self.reached = reach(self)

    def forward(self, x: Tensor) -> Tensor:
        step = self.reached if callable(self.reached) else self.kept
        return self.out(step(x).relu())  # type: ignore[no-any-return]


class Held:
    """An object of the user's own, neither a module nor a container."""

    __slots__ = ("layer",)

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, x: Tensor) -> Any:
        return self.layer(x)


class First:
    """Runs what comes first in a container."""

    def __init__(self, container: Any) -> None:
        self.container = container

    def __call__(self, x: Tensor) -> Any:
        found = self.container
        return (found["a"] if isinstance(found, dict) else next(iter(found)))(x)


def called(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x)  # type: ignore[no-any-return]


REPLACED: dict[str, Reach] = {
    "attribute": lambda net: Held(net.a),
    "list": lambda net: First([net.a]),
    "tuple": lambda net: First((net.a, 1)),
    "dictionary": lambda net: First({"a": net.a}),
    "deque": lambda net: First(deque([net.a])),
    "list in a dictionary": lambda net: First([First({"a": net.a})]),
    "partial": lambda net: partial(called, net.a),
    "partial of the layer": lambda net: partial(net.a),
    "bound call": lambda net: net.a.__call__,
}


def elsewhere_weakly(net: Net) -> Callable[[Tensor], Tensor]:
    reference = weakref.ref(net.a)
    return lambda x: reference()(x)  # type: ignore[misc]


ELSEWHERE: dict[str, Reach] = {
    "closure": lambda net: lambda x: net.a(x),
    "default of a lambda": lambda net: lambda x, a=net.a: a(x),
    "weak reference": elsewhere_weakly,
}

NEVER_CALLED: dict[str, Reach] = {
    "bound forward": lambda net: net.a.forward,
    "weight": lambda net: lambda x: F.linear(x, net.a.weight, net.a.bias),
}


def inventory_of(net: nn.Module) -> Inventory:
    return take_inventory(net.eval(), X)


def reason_of(inventory: Inventory, name: str = "a") -> str:
    (found,) = [each.reason for each in inventory.skipped if each.name == name]
    return found


def at_rank(net: nn.Module, rank: int) -> nn.Module:
    layers = inventory_of(net).layers
    point = Point({"a": Choice("svd", {"rank": rank})})
    return factorize(net, point, layers, {"svd": SVD}, lambda name: DirectBases(net.get_submodule(name).weight))  # type: ignore[arg-type]


@pytest.mark.parametrize("reach", REPLACED.values(), ids=REPLACED.keys())
def test_a_layer_is_replaced_wherever_the_model_holds_it(reach: Reach) -> None:
    net = Net(reach).eval()
    inventory, small = inventory_of(net), at_rank(net, 2)
    assert list(inventory.layers) == ["a", "out"]
    ran: list[nn.Module] = []
    small.get_submodule("a").register_forward_hook(lambda module, *_: ran.append(module))
    assert not torch.allclose(small(X), net(X), atol=1e-3)
    assert [type(module) for module in ran] == [SVD]
    torch.testing.assert_close(at_rank(net, 6)(X), net(X))
    cost = layer_cost(inventory.layers["a"], SVD, Choice("svd", {"rank": 2}))
    dense = layer_cost(inventory.layers["out"], None, Choice())
    assert count_macs(small, [X]) == (cost + dense + inventory.rest).macs
    assert count_params(small) == (cost + dense + inventory.rest).params
    empty = skeleton(net, Point({"a": Choice("svd", {"rank": 2})}), inventory.layers, {"svd": SVD})
    empty.load_state_dict(small.state_dict())
    assert torch.equal(empty(X), small(X))


@pytest.mark.parametrize("reach", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_a_layer_that_a_copy_does_not_hold_is_skipped(reach: Reach) -> None:
    inventory = inventory_of(Net(reach))
    assert list(inventory.layers) == ["out"]
    assert "the dense layer would go on running" in reason_of(inventory)


@pytest.mark.parametrize("reach", NEVER_CALLED.values(), ids=NEVER_CALLED.keys())
def test_a_layer_whose_call_is_gone_round_is_skipped(reach: Reach) -> None:
    assert "never called" in reason_of(inventory_of(Net(reach)))


class Both(nn.Module):
    """Calls a layer, and computes with its weight or its bias as well."""

    def __init__(self, also: Callable[[nn.Linear, Tensor], object]) -> None:
        super().__init__()
        self.a, self.out, self.also = nn.Linear(6, 8), nn.Linear(8, 2), also

    def forward(self, x: Tensor) -> Tensor:
        self.also(self.a, x)
        return self.out(self.a(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "also",
    [
        lambda a, x: F.linear(x, a.weight),
        lambda a, x: x @ a.weight.t(),
        lambda a, x: a.weight.data.square().sum(),
        lambda a, x: F.normalize(a.weight, dim=1),
        lambda a, x: nn.Linear.forward(a, x),
    ],
)
def test_a_weight_that_is_read_beside_its_layer_is_skipped(also: Callable[[nn.Linear, Tensor], object]) -> None:
    inventory = inventory_of(Both(also))
    assert list(inventory.layers) == ["out"]
    assert "its weight is read elsewhere" in reason_of(inventory)


@pytest.mark.parametrize(
    "also",
    [
        lambda a, x: x.to(a.weight.dtype),
        lambda a, x: x.to(a.weight.device),
        lambda a, x: torch.zeros(a.weight.shape[0], a.weight.size(1)),
        lambda a, x: isinstance(a.weight, Tensor) and a.weight.dim() + a.weight.ndim + a.weight.numel(),
        lambda a, x: a.bias + 1,
        lambda a, x: x.reshape(-1, a.in_features),
    ],
)
def test_asking_for_the_shape_of_a_weight_is_no_reading(also: Callable[[nn.Linear, Tensor], object]) -> None:
    net = Both(also).eval()
    assert list(inventory_of(net).layers) == ["a", "out"]
    assert count_macs(at_rank(net, 2), [X]) == 3 * (6 * 2 + 2 * 8 + 8 * 2)


class Twice(nn.Module):
    """A layer that runs under its attribute and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(6, 6), nn.Linear(6, 2)
        self.again = lambda x: self.a(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.again(self.a(x)))  # type: ignore[no-any-return]


def test_a_layer_that_runs_both_ways_is_skipped() -> None:
    assert "go on running" in reason_of(inventory_of(Twice()))


class Strict(nn.Module):
    """Insists on the class of one of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.a, nn.Linear):
            raise TypeError("a must be Linear")
        return self.out(self.b(self.a(x)))  # type: ignore[no-any-return]


def test_a_layer_that_the_model_cannot_be_without_is_skipped_alone() -> None:
    inventory = inventory_of(Strict())
    assert list(inventory.layers) == ["b", "out"]
    assert "a must be Linear" in reason_of(inventory)


RUNS: list[int] = []


class StrictInDepth(nn.Module):
    """Insists on the class of one of its many layers, and counts how often it is run."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList(nn.Linear(6, 6) for _ in range(64))
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        RUNS.append(1)
        if not isinstance(self.inner[41], nn.Linear):
            raise TypeError("number 41 must be Linear")
        for each in self.inner:
            x = each(x)
        return self.out(x)  # type: ignore[no-any-return]


class OneOfTwo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.a, Factorization) and isinstance(self.b, Factorization):
            raise TypeError("not both")
        return self.b(self.a(x))  # type: ignore[no-any-return]


def test_layers_that_cannot_be_replaced_together_are_all_skipped() -> None:
    inventory = inventory_of(OneOfTwo())
    assert not inventory.layers
    assert "not both" in reason_of(inventory)


def test_one_of_many_layers_is_found_in_few_runs() -> None:
    RUNS.clear()
    inventory = inventory_of(StrictInDepth())
    assert len(inventory.layers) == 64
    assert [each.name for each in inventory.skipped] == ["inner.41"]
    assert len(RUNS) < 30


class CopiesItself(nn.Module):
    """Its copy is itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6)

    def __deepcopy__(self, memo: dict[int, Any]) -> CopiesItself:
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x)  # type: ignore[no-any-return]


def test_a_model_that_is_its_own_copy_is_left_alone() -> None:
    model = nn.Sequential(CopiesItself())
    take_inventory(model.eval(), X)
    assert type(model[0].a) is nn.Linear


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(input=x)  # type: ignore[no-any-return]


def test_a_layer_may_be_called_by_keyword() -> None:
    net = ByKeyword().eval()
    assert inventory_of(net).layers["a"].inputs == ((3, 6),)
    torch.testing.assert_close(at_rank(net, 6)(X), net(X))


def test_the_fast_path_of_a_transformer_leaves_room_for_factorizations() -> None:
    net = nn.Sequential(nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)).eval()
    x = torch.randn(2, 5, 6)
    layers = take_inventory(net, x).layers
    assert list(layers) == ["0.linear1", "0.linear2"]
    point = Point({name: Choice("svd", {"rank": 1}) for name in layers})
    made = factorize(net, point, layers, {"svd": SVD}, lambda name: DirectBases(net.get_submodule(name).weight))  # type: ignore[arg-type]
    ran: list[nn.Module] = []
    for name in layers:
        made.get_submodule(name).register_forward_hook(lambda module, *_: ran.append(module))
    with torch.no_grad():
        assert not torch.allclose(made(x), net(x), atol=1e-4)
    assert len(ran) == 2


class Mapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.vmap(self.a)(x))  # type: ignore[no-any-return]


def test_a_layer_within_vmap_is_skipped() -> None:
    inventory = inventory_of(Mapped())
    assert list(inventory.layers) == ["out"]
    assert "transformation" in reason_of(inventory)


# ---- forwards that differentiate -------------------------------------------------------------------------


class Forces(nn.Module):
    """The gradient of an energy by the input."""

    def __init__(self, also: Callable[[nn.Linear], Tensor] = lambda a: torch.zeros(())) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.out, self.also = nn.Linear(6, 8), nn.Linear(8, 2), also

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = self.out(self.a(x).tanh()).square().sum() + self.also(self.a)
            (found,) = torch.autograd.grad(energy, x)
        return -found


def test_a_forward_that_differentiates_runs_replaced() -> None:
    net = Forces().eval()
    inventory = inventory_of(net)
    assert list(inventory.layers) == ["a", "out"]
    forward = sum(layer_cost(each, None, Choice()).macs for each in inventory.layers.values())
    assert inventory.dense.macs == 2 * forward, "the backward by the input costs what the forward does"
    torch.testing.assert_close(at_rank(net, 6)(X), net(X), rtol=1e-4, atol=1e-5)
    cut = at_rank(net, 1)
    assert not torch.allclose(cut(X), net(X), atol=1e-3)
    assert count_macs(cut, [X]) == 2 * 3 * (6 + 8 + 16), "rank 1, and the other layer, there and back"


def test_a_weight_that_is_read_beside_its_layer_is_skipped_where_the_forward_differentiates() -> None:
    inventory = inventory_of(Forces(lambda a: a.weight.square().sum()))
    assert list(inventory.layers) == ["out"]
    assert "its weight is read elsewhere" in reason_of(inventory)

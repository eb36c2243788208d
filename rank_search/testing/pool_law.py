"""The law of factorizations that share factors: a pool of three layers is built, counted, kept and copied as one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from rank_search.layers import (
    DirectBases,
    Factorization,
    Layer,
    PooledFactorization,
    axes_of,
    count_params,
    factorize,
    layer_cost,
    output_error,
    skeleton,
    take_inventory,
    with_pools,
)
from rank_search.point import Choice, Point
from rank_search.testing.case import axis_values, normal

_ROUNDING: Final = 1e-4  # of 32 bits, as in the other laws
_NAME: Final = "pooled"

Network = Callable[[], nn.Sequential]

POOLS: Final[Mapping[str, tuple[Network, tuple[int, ...]]]] = {
    "a pool of three Linear(8, 8)": (
        lambda: nn.Sequential(*(nn.Linear(8, 8, bias=place > 0) for place in range(3))),
        (2, 8),
    ),
    "a pool of three Conv2d(4, 4, kernel_size=(3, 3))": (
        lambda: nn.Sequential(*(nn.Conv2d(4, 4, 3, stride=1 + place % 2, padding=1) for place in range(3))),
        (2, 4, 6, 6),
    ),
    "a pool of Linear(6, 10), Linear(10, 7) and Linear(7, 9)": (
        lambda: nn.Sequential(nn.Linear(6, 10), nn.Linear(10, 7), nn.Linear(7, 9)),
        (2, 6),
    ),
}
"""Networks whose layers are a pool, each with the shape of its inputs."""


@dataclass(frozen=True)
class PoolCase:
    """A factorization that shares factors, and a network whose layers are one pool.

    Attributes:
        x: inputs of the network.
    """

    plugin: type[PooledFactorization]
    model: nn.Module
    x: Tensor
    layers: Mapping[str, Layer]

    @classmethod
    def of(cls, plugin: type[PooledFactorization], network: Network, shape: tuple[int, ...]) -> PoolCase:
        """With weights and inputs that are the same every time."""
        model, x = network().eval(), normal(shape, torch.float32)
        with torch.no_grad():
            for place, parameter in enumerate(model.parameters()):
                parameter.copy_(normal((place + 1, *parameter.shape), torch.float32)[place])
        found = take_inventory(model, x).layers
        return cls(plugin, model, x, with_pools(found, {_NAME: tuple(found)}, {_NAME: plugin}))

    def point(self, values: Mapping[str, float]) -> Point:
        """All layers with the same values."""
        return Point({name: Choice(_NAME, dict(values)) for name in self.layers})

    def bases(self, name: str) -> DirectBases:
        """Of a layer's weight, with inputs that depend on each other."""
        weight = self.model.get_submodule(name).get_parameter("weight").detach()
        drawn = normal((2 * weight[0].numel(), weight[0].numel()), torch.float32).relu()
        return DirectBases(weight, drawn.T @ drawn / len(drawn))

    def built(self, values: Mapping[str, float]) -> nn.Module:
        """The network, every layer fitted."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return factorize(self.model, self.point(values), self.layers, {_NAME: self.plugin}, self.bases).eval()

    def tried(self) -> list[dict[str, float]]:
        """Low, high and middle values; nothing where the factorization does not apply."""
        axes = axes_of(self.plugin, next(iter(self.layers.values())))
        return axis_values(axes) if axes else []

    def violations(self) -> Iterator[str]:
        """What is found with the values that are tried."""
        first, *others = (axes_of(self.plugin, layer) for layer in self.layers.values())
        if any(other != first for other in others):
            yield "axes are not the same for all layers of a pool"
            return
        for values in self.tried():
            said = ", ".join(f"{name}={value}" for name, value in values.items())
            yield from (f"with {said}: {found}" for found in self._with(values))

    def _with(self, values: Mapping[str, float]) -> Iterator[str]:
        made, plugins = self.built(values), {_NAME: self.plugin}
        yield from _apart(made, "factorize()")
        choice = Choice(_NAME, dict(values))
        counted = sum(layer_cost(layer, self.plugin, choice).params for layer in self.layers.values())
        if counted != count_params(made):
            yield f"its layers have {counted} parameters by their costs, and the network {count_params(made)}"
        bare = skeleton(self.model, self.point(values), self.layers, plugins).eval()
        bare.load_state_dict(made.state_dict())
        copies = {"a skeleton with its state": bare, "a deep copy": copy.deepcopy(made)}
        copies["a pickle"] = pickle.loads(pickle.dumps(made))  # noqa: S301 - of what has been made here
        for what, each in copies.items():
            yield from _apart(each, what)
            if not torch.equal(each(self.x), made(self.x)):
                yield f"{what} gives other outputs"
        yield from self._far(made)

    def _far(self, made: nn.Module) -> Iterator[str]:
        """In the outputs, each layer's error relative to its own size, as a search adds them up."""
        total = 0.0
        for name, form in _forms(made).items():
            weight, moment = self.model.get_submodule(name).get_parameter("weight"), self.bases(name).moment
            zero = output_error(weight, torch.zeros_like(weight), moment)
            total += output_error(weight, form.dense(), moment) / zero
        if not total <= len(self.layers) * (1 + _ROUNDING):
            yield f"the relative errors of its {len(self.layers)} layers are {total:.6g} in all, more than zeros have"


def _forms(model: nn.Module) -> dict[str, Factorization]:
    return {name: each for name, each in model.named_modules() if isinstance(each, Factorization)}


def _apart(model: nn.Module, what: str) -> Iterator[str]:
    """Parameters that should be the same and are not, or the other way round."""
    first, *others = _forms(model).values()
    own = dict(first.named_parameters())
    assert isinstance(first, PooledFactorization)
    if missing := [name for name in first.shared if name not in own]:
        yield f"{what} has no parameter {', '.join(missing)}, which it names as shared"
    for other in others:
        for name, parameter in other.named_parameters():
            if name in own and (parameter is own[name]) is not (name in first.shared):
                has = "one for each layer" if name in first.shared else "the same for all layers"
                yield f"{what} has a parameter {name}, {has}; shared are {', '.join(first.shared)}"

"""The laws of kinds of layers: what a kind says of a module is what the module does."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

import torch
from torch import Tensor, nn

from rank_search.layers import Layer, LayerKind, layer_kinds, weight_in
from rank_search.testing.case import normal

if TYPE_CHECKING:
    import pytest

_CLOSE: Final = 1e-9  # relative to the largest number, in float64


@dataclass(frozen=True)
class Sample:
    """A module that the kind takes, in float64, and an input of it."""

    module: nn.Module
    x: Tensor

    @property
    def layer(self) -> Layer:
        return replace(Layer.of(self.module, "sample"), inputs=(tuple(self.x.shape),))


KindLaw = Callable[[type[LayerKind], Sample], Iterator[str]]


def found(kind: type[LayerKind], sample: Sample) -> Iterator[str]:
    """1. The module's layer has the name under which the kind is installed, and goes on pickling."""
    own = layer_kinds().get(sample.layer.kind)
    if type(own) is not kind:
        yield f"its layer is of the kind {sample.layer.kind!r}, which is {type(own).__name__}"
    if pickle.loads(pickle.dumps(sample.layer)) != sample.layer:  # noqa: S301 - made in this line
        yield "its layer is another one after pickling"


def operation(kind: type[LayerKind], sample: Sample) -> Iterator[str]:
    """2. The layer's operation with the module's weight and bias is the module's forward."""
    weight, bias = weight_in(sample.module), dict(sample.module.named_parameters()).get("bias")
    if tuple(weight.shape) != sample.layer.shape or sample.layer.bias != (bias is not None):
        yield f"the weight is {list(weight.shape)}, the layer says {sample.layer}"
        return
    yield from _differs("operate", sample.layer.operate(sample.x, weight, bias), sample.module(sample.x))


def written(kind: type[LayerKind], sample: Sample) -> Iterator[str]:
    """3. What is written into the weight is what the module computes with."""
    module = copy.deepcopy(sample.module)
    weight = normal(sample.layer.shape, torch.float64).exp()  # other numbers than it has
    weight_in(module).copy_(weight)
    bias = dict(module.named_parameters()).get("bias")
    yield from _differs("the module", module(sample.x), sample.layer.operate(sample.x, weight, bias))


def mixed(kind: type[LayerKind], sample: Sample) -> Iterator[str]:
    """4. A weight that is a product is an operation and a mixing of its channels."""
    layer = sample.layer
    rank = max(1, min(layer.out_features // layer.groups, layer.shape[1]) // 2)
    outer = normal((layer.out_features, rank), torch.float64)
    inner = normal((layer.groups * rank, *layer.shape[1:]), torch.float64)
    product = layer.by_group(outer) @ layer.by_group(inner.flatten(1))
    whole = layer.operate(sample.x, product.view(layer.shape))
    yield from _differs("mix after operate", layer.mix(layer.operate(sample.x, inner), outer), whole)


def multiplied(kind: type[LayerKind], sample: Sample) -> Iterator[str]:
    """5. Outputs are the columns times the weight, so that their moments say what an error of the weight does."""
    layer = sample.layer
    weight = weight_in(sample.module).detach()
    columns = layer.columns(sample.x, 1 << 20)
    if layer.one_hot:
        columns = nn.functional.one_hot(columns, layer.in_features).to(weight)
    wanted = [layer.groups * weight[0].numel()]
    if list(columns.shape[1:]) != wanted:
        yield f"a row of columns is {list(columns.shape[1:])}, the weight has {wanted} numbers for each output"
        return
    blocks = zip(columns.chunk(layer.groups, 1), weight.flatten(1).chunk(layer.groups), strict=True)
    found = torch.cat([inputs @ block.T for inputs, block in blocks], 1)
    outputs = layer.operate(sample.x, weight).movedim(layer.channels, -1).flatten(0, -2)
    yield from _differs("the columns times the weight", found, outputs)


LAYER_KIND_LAWS: Final[Mapping[str, KindLaw]] = MappingProxyType(
    {"Found": found, "Operation": operation, "Written": written, "Mixed": mixed, "Multiplied": multiplied}
)


class LayerKindLaws:
    """The laws of kinds as pytest tests, one for each law and sample: subclass it, name the kind and give samples.

        class TestScaled(LayerKindLaws):
            kind = ScaledKind
            samples = ((Scaled(4, 3).double(), torch.zeros(2, 4)),)

    The input of a sample gives the shape; its numbers are drawn. `rank_search.testing.FactorizationLaws` takes the
    layers of a kind, too (`layers`), so that the laws of factorizations run on it.
    """

    kind: ClassVar[type[LayerKind]]
    samples: ClassVar[Sequence[tuple[nn.Module, Tensor]]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "law" in metafunc.fixturenames:
            metafunc.parametrize("law", LAYER_KIND_LAWS)
            metafunc.parametrize("number", range(len(self.samples)), ids=[str(module) for module, _ in self.samples])

    def test_there_are_samples(self) -> None:
        assert self.samples

    def test_law(self, law: str, number: int) -> None:
        assert violations(law, self.kind, *self.samples[number]) == []


def violations(law: str, kind: type[LayerKind], module: nn.Module, x: Tensor) -> list[str]:
    """What of a law a module breaks; the numbers of its input are drawn."""
    given = Layer.of(module).inputs_like(normal(x.shape, torch.float64))
    sample = Sample(copy.deepcopy(module).double().eval(), given)
    with torch.no_grad():
        for number, parameter in enumerate(sample.module.parameters()):
            parameter.copy_(normal((number + 1, *parameter.shape), torch.float64)[-1])
        return list(LAYER_KIND_LAWS[law](kind, sample))


def _differs(what: str, one: Tensor, other: Tensor) -> Iterator[str]:
    if one.shape != other.shape:
        yield f"{what} gives {list(one.shape)}, expected is {list(other.shape)}"
    elif not bool((one - other).abs().max() <= _CLOSE * (1 + other.abs().max())):
        yield f"{what} is {float((one - other).abs().max()):.3g} away from what is expected"

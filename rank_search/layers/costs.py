"""What a layer or a model costs: counted on the real module, never from a formula."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.errors import ContractError
from rank_search.layers.calls import Example, forward
from rank_search.layers.counting import WHOLE, multiply_adds
from rank_search.layers.factorization import Factorization
from rank_search.layers.layer import Layer
from rank_search.layers.plugins import plugin_errors
from rank_search.layers.pools import borrowed, is_pooled, pool_id
from rank_search.layers.tied_use import TiedUse
from rank_search.point import Choice


@dataclass(frozen=True)
class Cost:
    """Parameters, and multiply-adds (MACs) of one forward of the task's example, or the mean of several."""

    params: int
    macs: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.params + other.params, self.macs + other.macs)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.params - other.params, self.macs - other.macs)


def count_macs(module: nn.Module, inputs: Iterable[Example]) -> int:
    """Multiply-adds of the module's forward on each of the inputs, summed.

    Counts matrix products, convolutions, attention, recurrent layers and distances as PyTorch dispatches them, see
    `counting.multiply_adds`; additions of biases, norms and activations are not counted, nor is what makes the weight
    of a form that leaves the layer's operation as it is (see `made_weights`).
    """
    examples = tuple(inputs)
    with made_weights(module):
        return multiply_adds(lambda: [forward(module, x) for x in examples])[WHOLE]


def mean_macs(module: nn.Module, examples: Sequence[Example]) -> float:
    """Multiply-adds of the module's forward, mean of the examples."""
    return mean([count_macs(module, [example]) for example in examples])


def mean(counts: Sequence[int]) -> float:
    """The mean, a whole number where it is one.

    >>> mean([1, 2]), mean([1, 3])
    (1.5, 2)
    """
    return _share(sum(counts), len(counts))


def _share(total: int, count: int) -> float:
    return total / count if total % count else total // count


def macs_by_module(model: nn.Module, example: Example) -> dict[str, int]:
    """Multiply-adds of one forward by dotted module name, that of a module including what is inside it.

    The whole model has the empty name. A module that stands under several names is counted under one of them.
    """
    with made_weights(model):
        counts = multiply_adds(lambda: forward(model, example), by_module=True)
    root = f"{type(model).__name__}."
    inside = {name.removeprefix(root): macs for name, macs in counts.items() if name.startswith(root)}
    return {**inside, "": counts[WHOLE]}


@contextmanager
def made_weights(module: nn.Module) -> Iterator[None]:
    """Inside, the weights of forms whose class has no forward of its own are made already, as once and for all inputs.

    Such a form is the layer's own operation with another weight, so that it costs the layer's MACs.
    """
    forms = [each for each in module.modules() if isinstance(each, Factorization) and _is_the_operation(each)]
    with torch.no_grad():
        weights = [form.dense() for form in forms]
    for form, weight in zip(forms, weights, strict=True):
        vars(form)["dense"] = partial(_itself, weight)
    try:
        yield
    finally:
        for form in forms:
            del vars(form)["dense"]


def _is_the_operation(form: Factorization) -> bool:
    return type(form).forward is Factorization.forward and "dense" not in vars(form)


def _itself(weight: Tensor) -> Tensor:
    return weight


def count_params(module: nn.Module) -> int:
    """Number of scalars in the parameters, each tensor once however often it is used."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def count_nonzeros(module: nn.Module) -> int:
    """Number of parameters that are not zero, each tensor once; of a form, of its factors or of the weight they make.

    Whichever are fewer: a low rank is kept in its factors, and a weight that training made sparse is kept itself.

    >>> count_nonzeros(nn.ParameterList([torch.tensor([0.0, 2.0, -1.0])]))
    2
    """
    forms = [each for each in module.modules() if isinstance(each, Factorization)]
    inside = {id(each) for each in _factors(forms)}
    others = sum(_nonzeros([each]) for each in module.parameters() if id(each) not in inside)
    pools: dict[int, list[Factorization]] = {}
    for form in forms:
        pools.setdefault(pool_id(form), []).append(form)
    return others + sum(
        min(_nonzeros(_factors(pool)), _nonzeros(each.dense() for each in pool)) for pool in pools.values()
    )


def _factors(forms: Iterable[Factorization]) -> list[Tensor]:
    """All but the biases, each once."""
    found = {id(each): each for form in forms for each in form.parameters() if each is not form.bias}
    return list(found.values())


def _nonzeros(tensors: Iterable[Tensor]) -> int:
    return sum(int(torch.count_nonzero(each)) for each in tensors)


class DenseForm(nn.Module):
    """The layer as it is, its weight not set: what `dense` costs."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.weight = nn.Parameter(torch.empty(layer.shape, dtype=layer.dtype))
        self.bias = nn.Parameter(torch.empty(layer.out_features, dtype=layer.dtype)) if layer.bias else None

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.operate(x, self.weight, self.bias)

    def rows(self, index: Tensor) -> Tensor:
        """As those of a factorization."""
        return F.embedding(index, self.weight.flatten(1))


def layer_cost(layer: Layer, plugin: type[Factorization] | None, choice: Choice) -> Cost:
    """Cost of one layer under a choice, with its ties, counted on modules on the meta device (nothing is allocated).

    `plugin` is the class that `choice.factorization` names, None for dense. What the forms of a pool share is a cost of
    its first layer. Equal questions are answered from memory. Complexity: one forward on the meta device, well under a
    millisecond.

    Raises:
        ContractError: the plugin raises.
    """
    if layer.pool and not is_pooled(plugin):
        layer = replace(layer, pool=(), place=0)
    return _layer_cost(layer, plugin, tuple(sorted(choice.values.items())))


@lru_cache(maxsize=65536)
def _layer_cost(layer: Layer, plugin: type[Factorization] | None, values: tuple[tuple[str, float], ...]) -> Cost:
    try:  # without its name, so that of many layers of one geometry one is counted
        return _geometry_cost(replace(layer, name="", aliases=()), plugin, values)
    except ContractError:
        return _geometry_cost(layer, plugin, values)


@lru_cache(maxsize=65536)
def _geometry_cost(layer: Layer, plugin: type[Factorization] | None, values: tuple[tuple[str, float], ...]) -> Cost:
    if plugin is None:
        return _counted(lambda: DenseForm(layer), layer) + Cost(layer.extra_params, layer.extra_macs)
    made = ", ".join(f"{name}={value:g}" for name, value in values)
    with plugin_errors(plugin, f"forward() on the meta device with {made}", layer):
        return _counted(lambda: plugin(layer, **dict(values)), layer)


def _counted(make: Callable[[], nn.Module], layer: Layer) -> Cost:
    with torch.device("meta"):
        module = make().eval()
        users = [module, *(TiedUse(tie, module).eval() for tie in layer.ties)]
        with made_weights(module):
            macs = sum(_macs_of(user, its) for user, its in zip(users, layer.users, strict=True))
    elsewhere = borrowed(module) if isinstance(module, Factorization) else 0
    return Cost(sum(map(count_params, users)) - elsewhere, _share(macs, layer.examples))


def _macs_of(module: nn.Module, layer: Layer) -> int:
    """On all of its inputs; of a recurrent matrix they have the same shape at every step."""
    times = Counter(layer.inputs)
    inputs = {shape: layer.inputs_like(torch.empty(shape, dtype=layer.dtype)) for shape in times}
    return sum(times[shape] * count_macs(module, [x]) for shape, x in inputs.items())

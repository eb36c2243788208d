"""Pools: tied layers whose forms hold some of their factors together, as the very same parameters."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from rank_search.errors import LayerError
from rank_search.layers.bases import Bases, Weighed
from rank_search.layers.factorization import Factorization, fit_to, led_back, may_be_led_back
from rank_search.layers.layer import Layer
from rank_search.point import Choice, Point

Plugins = Mapping[str, type[Factorization]]


class PooledFactorization(Factorization):
    """A factorization whose forms of tied layers share parameters: all the layers of a pool take it, or none does.

    A pool is a group of `[layers] tie`. Its forms are made from layers that know it (`Layer.members`, `Layer.place`),
    all with the same values, so `axes` may depend on the pool, and is the same for all its layers. A layer that is not
    tied is a pool of one.

    Attributes:
        shared: the names of the parameters that the forms of a pool have in common. They have the same shape in all of
            them, are trained and stored once, and are counted with the first layer.
    """

    shared: ClassVar[tuple[str, ...]]

    @classmethod
    @abstractmethod
    def fit_pool(cls, forms: Sequence[Self], weights: Sequence[Tensor], bases: Sequence[Bases]) -> None:
        """Fit the forms of a pool, in its order, to their weights; as `fit` otherwise.

        What a search adds up is each layer's error relative to its own size.
        """

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        self.fit_pool([self], [weight], [bases])


def with_pools(layers: Mapping[str, Layer], groups: Mapping[str, Sequence[str]], plugins: Plugins) -> dict[str, Layer]:
    """The layers, those that are tied knowing their pool; as they are where no factorization asks for it.

    Args:
        groups: layers that are tied, by any name.
    """
    found = dict(layers)
    if not any(map(is_pooled, plugins.values())):
        return found
    for members in (each for each in groups.values() if len(each) > 1):
        pool = tuple(layers[name] for name in members)
        found |= {name: replace(layers[name], pool=pool, place=place) for place, name in enumerate(members)}
    return found


def taken_together(
    choices: Mapping[str, Sequence[str]], groups: Mapping[str, Sequence[str]], plugins: Plugins
) -> dict[str, tuple[str, ...]]:
    """The choices of each layer, without what shares factors with layers that may not take it."""
    found = {name: tuple(own) for name, own in choices.items()}
    for members in groups.values():
        common = set(choices[members[0]]).intersection(*(choices[name] for name in members))
        for name in members:
            found[name] = tuple(key for key in choices[name] if key in common or not is_pooled(plugins[key]))
    return found


def is_pooled(plugin: type[Factorization] | None) -> bool:
    """Whether forms of it share parameters where their layers are tied."""
    return plugin is not None and issubclass(plugin, PooledFactorization)


def pool_names(layer: Layer, plugin: type[Factorization] | None) -> tuple[str, ...]:
    """The layers that take a choice together with this one, itself among them."""
    return tuple(each.name for each in layer.members) if is_pooled(plugin) else (layer.name,)


def shares_factors(form: Factorization) -> bool:
    """Whether some of its parameters are also those of other layers' forms."""
    return isinstance(form, PooledFactorization) and len(form.layer.members) > 1


def pool_id(form: Factorization) -> int:
    """The same number for forms that share parameters, and for no others."""
    return id(form.get_parameter(form.shared[0]) if isinstance(form, PooledFactorization) else form)


def borrowed(form: Factorization) -> int:
    """How many scalars of its parameters are counted with another layer, the first of its pool."""
    if not isinstance(form, PooledFactorization) or not form.layer.place:
        return 0
    return sum(form.get_parameter(name).numel() for name in form.shared)


def own_parameters(form: Factorization) -> dict[str, nn.Parameter]:
    """Those that it shares with no other form, by name."""
    kept_out = form.shared if isinstance(form, PooledFactorization) and shares_factors(form) else ()
    return {name: each for name, each in form.named_parameters() if name not in kept_out}


def pools_of(forms: Mapping[str, Factorization]) -> list[tuple[str, ...]]:
    """The names of forms that are fitted together."""
    return list(dict.fromkeys(pool_names(replace(form.layer, name=name), type(form)) for name, form in forms.items()))


def share(forms: Sequence[Factorization]) -> None:
    """Give the forms of a pool the parameters that they share: those of the first, trainable if those of all are."""
    first, *others = forms
    if isinstance(first, PooledFactorization) and shares_factors(first):
        for name in first.shared:
            parameter = first.get_parameter(name)
            parameter.requires_grad_(all(form.get_parameter(name).requires_grad for form in forms))
            for other in others:
                setattr(other, name, parameter)


def fit_together(forms: Sequence[Factorization], weights: Sequence[Tensor], bases: Sequence[Bases]) -> None:
    """Fit the forms of a pool: as `fit_to` does for a single one, to the loss if that is known of all the layers."""
    first = forms[0]
    if len(forms) == 1 or not isinstance(first, PooledFactorization):
        fit_to(first, weights[0], bases[0])
        return
    pool: Any = forms
    first.fit_pool(pool, weights, bases)
    weighed = [each.weighed for each in bases if each.weighed is not None]
    if len(weighed) < len(bases) or not all(map(may_be_led_back, forms, weighed)):
        return
    before = _error(weighed, weights, forms)
    first.fit_pool(pool, [each.weight for each in weighed], [each.bases for each in weighed])
    led = [led_back(form, each, weight) for form, each, weight in zip(forms, weighed, weights, strict=True)]
    if not all(led) or not _error(weighed, weights, forms) < before:
        first.fit_pool(pool, weights, bases)


def pool_memo(bases: Sequence[Bases], weights: Sequence[Tensor], key: str, compute: Callable[[], Tensor]) -> Tensor:
    """What depends on the weights and moments of a whole pool alone, computed once; see `Bases.memo`."""
    contents = [_content(*each) for each in zip(bases, weights, strict=True)]
    return bases[0].memo(f"{key} {' '.join(contents)}", compute)


def check_pools(point: Point, layers: Mapping[str, Layer], plugins: Plugins) -> None:
    """Refuse a point in which layers that would share factors are not all the same.

    Raises:
        LayerError: there are such layers.
    """
    for name, choice in point.layers.items():
        if choice.is_dense or not is_pooled(plugins[choice.factorization]):
            continue
        for other in layers[name].pool:
            chosen = point.layers.get(other.name, Choice())
            if chosen != choice:
                raise LayerError(
                    f"Layer {name!r} is to be {_said(choice)} and layer {other.name!r}, to which it is tied, "
                    f"{_said(chosen)}. {choice.factorization} shares factors between tied layers ([layers] tie), so "
                    "all of them take it, with the same values. Choose it for all or for none of them, or untie them."
                )


def _content(bases: Bases, weight: Tensor) -> str:
    """A digest of a weight and its moment, which are hashed once."""

    def hashed() -> Tensor:
        content = hashlib.sha256()
        for tensor in (weight, bases.moment):
            if tensor is not None:
                content.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return torch.tensor(list(content.digest()), device="cpu")

    return bytes(bases.memo("content of a pool", hashed).tolist()).hex()


def _said(choice: Choice) -> str:
    return " ".join([choice.factorization, *(f"{axis} {value:g}" for axis, value in choice.values.items())])


def _error(weighed: Sequence[Weighed], weights: Sequence[Tensor], forms: Sequence[Factorization]) -> float:
    """Of the loss, each layer's relative to what it is if its outputs are lost."""
    parts = zip(weighed, weights, forms, strict=True)
    return sum(each.error(weight, form.dense()) / (each.total or 1.0) for each, weight, form in parts)

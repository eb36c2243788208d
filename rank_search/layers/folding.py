"""Weights that are computed from other tensors in every forward: put down as the numbers that they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from rank_search.layers.copies import shared

_ENDINGS: Final = ("_g", "_v", "_u", "_orig", "_mask")
"""Of the names that PyTorch's older functions give to what they compute a tensor from."""

_EVERY_MODULES: Final = frozenset(vars(nn.Module()))


def computed_in(module: nn.Module) -> tuple[str, ...]:
    """The names of the tensors that a module computes in every forward: by parametrizations, norms or pruning.

    >>> computed_in(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))), computed_in(nn.Linear(2, 3))
    (('weight',), ())
    """
    return (*(name for name, _ in _hooks(module)), *_parametrized(module))


def other_hooks(module: nn.Module) -> bool:
    """Whether it has hooks before its forward that compute nothing of its own."""
    return len(module._forward_pre_hooks) > len(list(_hooks(module)))


@torch.no_grad()
def folded(module: nn.Module) -> nn.Module:
    """A module of its class before that, with what it computes in evaluation as parameters.

    Its other tensors are the very same. The module is not changed.

    >>> pruned = nn.utils.prune.l1_unstructured(nn.Linear(2, 3), "weight", amount=4)
    >>> plain = folded(pruned)
    >>> int((plain.get_parameter("weight") == 0).sum()), [name for name, _ in plain.named_parameters()]
    (4, ['bias', 'weight'])
    """
    names = computed_in(module)
    gone = {f"{name}{ending}" for name in names for ending in _ENDINGS} | {"parametrizations", *names}
    made: nn.Module = object.__new__(type_before_parametrizations(module))
    nn.Module.__init__(made)
    for key, value in vars(module).items():
        if key not in _EVERY_MODULES | gone:
            setattr(made, key, value)
    for own in ("_parameters", "_buffers", "_modules"):
        vars(made)[own].update({key: value for key, value in vars(module)[own].items() if key not in gone})
    wanted = any(each.requires_grad for each in module.parameters())
    for name, value in _computed(module).items():
        made.register_parameter(name, nn.Parameter(value, requires_grad=wanted))
    return made.train(module.training)


def _computed(module: nn.Module) -> dict[str, Tensor]:
    """As in evaluation, where a norm takes no further step of its iteration."""
    probe = shared(module, {}).eval()
    for _, hook in _hooks(module):
        hook(probe, ())
    return {name: getattr(probe, name).detach().clone() for name in computed_in(module)}


def _parametrized(module: nn.Module) -> tuple[str, ...]:
    return tuple(dict(module.parametrizations.named_children())) if is_parametrized(module) else ()  # type: ignore[union-attr]


def _hooks(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """What PyTorch's older functions hang on a module, each with the name of what it computes."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm | SpectralNorm):
            yield hook.name, hook
        elif isinstance(hook, BasePruningMethod):
            yield hook._tensor_name, hook

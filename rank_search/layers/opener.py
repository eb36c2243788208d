"""The contract for modules that hold several linear operations in one: the same, with a layer for each inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from torch import Tensor, nn

from rank_search.layers.entries import entries_of, loaded_class
from rank_search.layers.kinds import is_like

GROUP: Final = "rank_search.opened"


class Opened(nn.Module, ABC):
    """What computes the same as a module of some classes, with ordinary layers inside.

    A search looks at the layers inside. A module in which none of them is factorized in the end stays what it is, so
    that what it does in one operation it goes on doing so.

    Installed by an entry point of the group `rank_search.opened`. The laws in `rank_search.testing.OpenedLaws` hold for
    every one. Attributes of the module that it has none of itself, such as `hidden_size`, are carried over to it.
    """

    # ---- must ------------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def classes(cls) -> tuple[type[nn.Module], ...]:
        """The classes of modules that it opens. What is not imported yet need not be imported for this."""

    @abstractmethod
    def __init__(self, module: nn.Module) -> None:
        """Open the module: every parameter is one of the module's, or a view of it (`viewed`, `linear_of`).

        What is written there changes the module. Begin with `super().__init__(module)`. The mode is set for it.
        """
        super().__init__()

    # ---- may -------------------------------------------------------------------------------------------

    @classmethod
    def refusal(cls, module: nn.Module) -> str:
        """Why this module of its classes cannot be opened all the same; empty if it can."""
        return ""


def viewed(tensor: Tensor) -> nn.Parameter:
    """A parameter with the very numbers of a tensor, or of a part of one."""
    return nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)


def linear_of(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer with the very numbers of a weight, out × in, and of a bias.

    >>> whole = nn.Linear(3, 4)
    >>> _ = nn.init.zeros_(linear_of(whole.weight[:2]).weight)
    >>> int((whole.weight == 0).sum())
    6
    """
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta", dtype=weight.dtype)
    made.weight = viewed(weight)
    if bias is not None:
        made.bias = viewed(bias)
    return made


# ---- finding them ----------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def openers() -> Mapping[str, type[Opened]]:
    """Every installed one by name, sorted by name.

    Raises:
        BrokenPluginError: one does not load.
        ContractError: one is no concrete `Opened`.

    >>> "lstm" in openers()
    True
    """
    return {
        name: loaded_class(entry, "What opens", Opened)  # type: ignore[type-abstract]
        for name, entry in entries_of(GROUP).items()
    }


def opener_of(module: nn.Module) -> type[Opened] | None:
    """What opens a module; None if nothing does. It may refuse the module all the same.

    >>> opener_of(nn.GRU(2, 3)).__name__, opener_of(nn.Linear(2, 3))
    ('OpenedGRU', None)
    """
    found = (each for each in openers().values() if any(is_like(type(module), own) for own in each.classes()))
    return next(found, None)

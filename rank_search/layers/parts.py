"""A layer that is several stacked ones, such as queries, keys and values in one weight, as one layer for each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, final

import torch
from torch import Tensor, nn

from rank_search.errors import LayerError
from rank_search.layers.globs import matches
from rank_search.layers.kinds import kind_of
from rank_search.layers.layer import Layer
from rank_search.layers.opener import Opened

RULE: Final = r"^.+:[1-9]\d*(\+[1-9]\d*)*$"
"""A glob on names of layers, and into what they are cut: `*.c_attn:3`, three equal parts; `*.qkv:4+1+1`, by shares."""

_NAME: Final = re.compile(r"\d+of(\d+(?:\+\d+)*)")


@final
class Parts(Opened):
    """A layer cut along its outputs: the layers `1of3`, `2of3`, `3of3`, whose outputs it puts side by side."""

    @classmethod
    def classes(cls) -> tuple[type[nn.Module], ...]:
        """None: a layer is cut where a study asks for it."""
        return ()

    def __init__(self, module: nn.Module, into: str) -> None:
        """Cut it.

        Raises:
            LayerError: it is of no kind that can be cut, or not into such parts.
        """
        super().__init__(module)
        layer, found = Layer.of(module), kind_of(module)
        cut = () if found is None else found[1].parts(module, _sizes(layer.out_features, into))
        if not cut:
            raise LayerError(f"{type(module).__name__} is of the kind {layer.kind}, which cannot be cut into parts.")
        for number, part in enumerate(cut, 1):
            self.add_module(f"{number}of{into}", part)
        self.channels = layer.channels

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([part(input) for part in self.children()], self.channels)


def _sizes(outputs: int, into: str) -> tuple[int, ...]:
    """Of the parts.

    Raises:
        LayerError: the outputs cannot be shared out so.
    """
    shares = [int(each) for each in into.split("+")] if "+" in into else [1] * int(into)
    unit, rest = divmod(outputs, sum(shares))
    if rest or len(shares) < 2:
        raise LayerError(
            f"{outputs} outputs cannot be cut into {into}: {sum(shares)} must divide them, and be more than 1."
        )
    return tuple(share * unit for share in shares)


def cut_into(name: str) -> str:
    """Into what the layer was cut that a part of this name is in; empty if it is no part's name.

    >>> cut_into("2of3"), cut_into("1of4+1+1"), cut_into("q")
    ('3', '4+1+1', '')
    """
    found = _NAME.fullmatch(name)
    return found[1] if found else ""


def cuts_asked_for(names: Sequence[str], rules: Sequence[str]) -> Mapping[str, str]:
    """What is cut, by name, and into what; the last rule that matches decides.

    Raises:
        LayerError: a rule matches nothing.

    >>> cuts_asked_for(["a.qkv", "a.out"], ["*.qkv:3"])
    {'a.qkv': '3'}
    """
    found: dict[str, str] = {}
    for rule in rules:
        glob, _, into = rule.rpartition(":")
        meant = [name for name in names if matches(name, glob)]
        if not meant:
            raise LayerError(f"{rule!r} in [layers] split matches none of: {', '.join(names)}.")
        found |= dict.fromkeys(meant, into)
    return found

"""The `[layers]` table of a study file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rank_search.errors import LayerError
from rank_search.layers.factorization import Factorization, axes_of
from rank_search.layers.globs import matches
from rank_search.layers.layer import Layer
from rank_search.layers.parts import RULE
from rank_search.layers.plugins import plugin_errors
from rank_search.layers.pools import Plugins
from rank_search.layers.tie_patterns import Captured, tied


class LayerRule(BaseModel):
    """The factorizations that some layers may take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str = Field(description="Glob on dotted layer names, or a name as it is listed.")
    factorizations: tuple[str, ...] = Field(
        description="What these layers may take, besides `dense`; an empty list keeps them dense."
    )


class LayersSettings(BaseModel):
    """Which layers are searched, what they may become, and which of them share one coordinate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    include: tuple[str, ...] = Field(("*",), description="Globs on dotted names: the layers to search.")
    exclude: tuple[str, ...] = Field((), description="Globs on dotted names: layers to leave dense.")
    factorizations: tuple[str, ...] = Field(
        ("svd", "tucker2"),
        min_length=1,
        description="What a layer may become besides `dense`: names of plugins, or `path.py:Class`. "
        "The first that applies is the one seed points use.",
    )
    rules: tuple[LayerRule, ...] = Field(
        (), description="Exceptions by layer: the last rule that matches a layer decides its factorizations."
    )
    split: tuple[Annotated[str, Field(pattern=RULE)], ...] = Field(
        (),
        description="Layers that are several stacked ones, as `glob:parts`: `*.c_attn:3` cuts them along their outputs "
        "into three equal layers `…c_attn.1of3`, `…2of3`, `…3of3`, and `*.qkv:4+1+1` into parts of such shares. The "
        "last rule that matches decides.",
    )
    tie: tuple[tuple[str, ...], ...] = Field(
        (),
        description="Lists of globs: the layers that one list matches share one coordinate of each kind. With captures "
        "one list makes many groups: `{part}` stands for a part between dots, and layers in which it differs are "
        "told apart; `{block:4}` for a number of which each four consecutive ones share; `(q|k)` for either, which "
        'share. `[["layers.{block:4}.attention.(q|k)"]]` ties the queries and keys of each four blocks.',
    )

    def plugin_names(self) -> tuple[str, ...]:
        """Every factorization that some layer may take, in the order of the file."""
        names = [*self.factorizations, *(name for rule in self.rules for name in rule.factorizations)]
        return tuple(dict.fromkeys(names))

    def choices(self, layers: Mapping[str, Layer], plugins: Plugins) -> dict[str, tuple[str, ...]]:
        """For each layer, the factorizations that its rule allows and that apply to it.

        Raises:
            LayerError: a rule matches no layer.
            ContractError: a plugin raises.
        """
        for rule in self.rules:
            if not any(matches(name, rule.match) for name in layers):
                raise LayerError(
                    f"{rule.match!r} in [[layers.rules]] matches no layer that is searched; there are: "
                    f"{', '.join(layers)}."
                )
        return {
            name: tuple(key for key in self._allowed(name) if _applies(plugins[key], layer))
            for name, layer in layers.items()
        }

    def _allowed(self, name: str) -> tuple[str, ...]:
        allowed = self.factorizations
        for rule in self.rules:
            if matches(name, rule.match):
                allowed = rule.factorizations
        return allowed

    def groups(self, layers: Mapping[str, Layer]) -> dict[str, tuple[str, ...]]:
        """Layers that share their coordinates, by the name of the group's first layer.

        Raises:
            LayerError: a list of globs matches no layer, or a layer stands in two lists; a pattern is malformed or
                matches none, or those of one list capture different parts.
        """
        owner: dict[str, str] = {}
        for globs in self.tie:
            members = tied(globs, layers)
            _check_tie(globs, list(members), owner)
            firsts: dict[Captured, str] = {}
            owner.update({name: firsts.setdefault(captured, name) for name, captured in members.items()})
        groups: dict[str, list[str]] = {}
        for name in layers:
            groups.setdefault(owner.get(name, name), []).append(name)
        return {first: tuple(members) for first, members in groups.items()}


def _applies(plugin: type[Factorization], layer: Layer) -> bool:
    with plugin_errors(plugin, "axes()", layer):
        return bool(axes_of(plugin, layer))


def _check_tie(globs: tuple[str, ...], members: list[str], owner: Mapping[str, str]) -> None:
    if not members:
        raise LayerError(f"{list(globs)} in [layers] tie matches no layer; each list must match one.")
    if twice := [name for name in members if name in owner]:
        raise LayerError(f"{', '.join(twice)} is in two lists of [layers] tie. Remove it from one.")

"""Layers of low rank in a model of transformers. Written by rank-search, which is not needed to run it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LowRankLayer(nn.Module, ABC):
    """Stands for a layer by two factors: left, out × rank, and right, rank × in.

    Where a layer's weight was tied to another's, that one has the factors, and this one uses them.
    """

    def __init__(self, dense: Any, rank: int, tied: LowRankLayer | None = None) -> None:
        super().__init__()
        weight = dense.weight if isinstance(dense, nn.Linear) else dense.weight.T  # of an embedding out × ids
        self._shape = tuple(dense.weight.shape)
        self._tied = (tied,)  # in a tuple: no child, whose factors would be saved under a second name
        if tied is None:
            self.left = nn.Parameter(weight.new_empty(int(weight.shape[0]), rank))
            self.right = nn.Parameter(weight.new_empty(rank, int(weight.shape[1])))

    @abstractmethod
    def forward(self, input: Tensor) -> Tensor:
        """What the layer gives, by way of both factors."""

    @property
    def source(self) -> LowRankLayer:
        """Where the factors are."""
        return self._tied[0] or self

    @property
    def weight(self) -> Tensor:
        """Of the dense weight's shape, type and device, which some models ask for; it has no numbers of any use."""
        return self.source.left.detach().new_empty(self._shape)


@final
class LowRank(LowRankLayer):
    """A linear layer: y = left · right · x + bias."""

    def __init__(self, dense: Any, rank: int, tied: LowRankLayer | None = None) -> None:
        super().__init__(dense, rank, tied)
        self.out_features, self.in_features = self._shape if isinstance(dense, nn.Linear) else self._shape[::-1]
        self.bias = None if dense.bias is None else nn.Parameter(dense.weight.new_empty(self.out_features))

    def forward(self, input: Tensor) -> Tensor:
        """The rows of the input through both factors."""
        return F.linear(F.linear(input, self.source.right), self.source.left, self.bias)


@final
class LowRankEmbedding(LowRankLayer):
    """An embedding: rank numbers for each id, and a linear map of these."""

    def __init__(self, dense: nn.Embedding, rank: int, tied: LowRankLayer | None = None) -> None:
        super().__init__(dense, rank, tied)
        self.num_embeddings, self.embedding_dim, self.padding_idx = *self._shape, dense.padding_idx

    def forward(self, input: Tensor) -> Tensor:
        """The rows that the ids name; no gradient goes through those of the padding."""
        if isinstance(self.source, LowRankEmbedding):
            return F.linear(F.embedding(input, self.source.right.T, self.padding_idx), self.source.left)
        rows = F.embedding(input, self.source.left) @ self.source.right  # of a head
        if self.padding_idx is None or not torch.is_grad_enabled():
            return rows
        return torch.where((input == self.padding_idx)[..., None], rows.detach(), rows)


@final
class Computed(nn.Module):
    """Any other layer: a function of its tensors, and of those of the layer whose weight it had (`source.…`)."""

    def __init__(self, dense: Any, made: Mapping[str, Any], function: Callable[..., Tensor], source: Any) -> None:
        super().__init__()
        self._shape, self._takes, self._function = tuple(dense.weight.shape), made["takes"], function
        self._source = (source,)  # in a tuple: no child, whose tensors would be saved under a second name
        self.register_parameter("bias", None)
        for name, about in made["tensors"].items():
            kind = getattr(torch, about["type"]) if about["type"] else dense.weight.dtype
            tensor = dense.weight.new_empty(about["shape"], dtype=kind)
            _register(self, name.split("."), nn.Parameter(tensor) if about["parameter"] else tensor)
        missing = {name: value for name, value in vars(dense).items() if not hasattr(self, name)}
        vars(self).update(missing)  # such as the stride, which some models ask for

    def forward(self, input: Tensor) -> Tensor:
        """What the function gives."""
        return self._function(input, *map(self._tensor, self._takes))

    def _tensor(self, name: str) -> Tensor:
        source = self._source[0] if name.startswith("source.") else None
        found: Tensor = attrgetter(name)(self) if source is None else attrgetter(name.removeprefix("source."))(source)
        return found

    @property
    def weight(self) -> Tensor:
        """Of the dense weight's shape, type and device, which some models ask for; it has no numbers of any use."""
        like = next(each for each in map(self._tensor, self._takes) if each.is_floating_point())
        return like.detach().new_empty(self._shape)


@final
class SideBySide(nn.Module):
    """A linear layer as several, whose outputs it puts side by side."""

    def __init__(self, dense: Any, parts: Sequence[tuple[str, int]]) -> None:
        super().__init__()
        for name, value in vars(dense).items():
            vars(self).setdefault(name, value)
        inputs, like = dense.weight.shape[isinstance(dense, nn.Linear)], dense.weight
        for name, size in parts:
            part = nn.Linear(inputs, size, bias=dense.bias is not None, device=like.device, dtype=like.dtype)
            self.add_module(name, part)

    def forward(self, input: Tensor) -> Tensor:
        """The outputs of all parts."""
        return torch.cat([part(input) for part in self.children()], -1)


def put_low_rank(model: Any) -> None:
    """Put layers of low rank where the model's configuration says so, by their names."""
    tied = {deep: still_tied(model, model.get_expanded_tied_weights_keys(deep)) for deep in (False, True)}
    for name, parts in getattr(model.config, "low_rank_parts", {}).items():
        _put(model, name, SideBySide(model.get_submodule(name), parts))
    for name, rank in model.config.low_rank.items():
        _put(model, name, _factorized(model.get_submodule(name), rank))
    for name, source in model.config.low_rank_ties.items():
        rank = model.config.low_rank[source]
        _put(model, name, _factorized(model.get_submodule(name), rank, model.get_submodule(source)))
    forms = getattr(model.config, "low_rank_forms", {})
    for name, made in sorted(forms.items(), key=lambda each: bool(each[1]["source"])):
        source = model.get_submodule(made["source"]) if made["source"] else None
        _put(model, name, Computed(model.get_submodule(name), made, globals()[made["computes"]], source))
    model.still_tied, model.all_tied_weights_keys = tied, still_tied(model, model.all_tied_weights_keys)


def still_tied(model: Any, names: Mapping[str, str]) -> dict[str, str]:
    """Of the names of tied parameters those that are not weights of layers of low rank, which have no such parameters.

    A bias is tied as before.
    """
    config = model.config
    gone = {*config.low_rank, *config.low_rank_ties, *getattr(config, "low_rank_forms", {})}
    weights = {f"{name}.weight" for name in gone}
    return {name: source for name, source in names.items() if name not in weights and source not in weights}


def _factorized(dense: Any, rank: int, tied: LowRankLayer | None = None) -> LowRankLayer:
    made = LowRankEmbedding if isinstance(dense, nn.Embedding) else LowRank
    return made(dense, rank, tied)


def _put(model: Any, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _register(module: nn.Module, path: Sequence[str], tensor: Tensor) -> None:
    """Under a dotted name, by way of modules that only hold it."""
    first, *rest = path
    if rest:
        if first not in module._modules:
            module.add_module(first, nn.Module())
        _register(module.get_submodule(first), rest, tensor)
    elif isinstance(tensor, nn.Parameter):
        module.register_parameter(first, tensor)
    else:
        module.register_buffer(first, tensor)

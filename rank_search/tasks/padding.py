"""Which positions of a batch are padding: no inputs of any layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, final

from torch import Tensor, nn

from rank_search.layers import Call, bound

ATTENTION_MASK: Final = "attention_mask"
"""The input by which models are told, batch × length: zero where a position is padding."""


@final
class Padding:
    """Of the batch that is running: what the task says, or what the model is given as `attention_mask`."""

    def __init__(self) -> None:
        self._said: Tensor | None = None
        self._given: Tensor | None = None

    def says(self, mask: Tensor | None) -> None:
        """Take the task's own word for the next batch: batch × length, zero or false at padding; None: it has none."""
        self._said, self._given = mask, None

    def look(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A hook before the model's forward."""
        try:
            found = bound(module, Call(args, kwargs)).get(ATTENTION_MASK)
        except (TypeError, ValueError):
            found = None
        self._given = found if isinstance(found, Tensor) and found.dim() == 2 and not bool((found < 0).any()) else None

    def without(self, x: Tensor) -> Tensor:
        """Inputs of a layer without those at padding: others than batch × length × features, or ids, as they are.

        >>> import torch
        >>> padding = Padding()
        >>> padding.says(torch.tensor([[1, 1, 0]]))
        >>> padding.without(torch.arange(6.0).reshape(1, 3, 2))
        tensor([[0., 1.],
                [2., 3.]])
        """
        mask = self._given if self._said is None else self._said
        if mask is None or x.dim() != (3 if x.is_floating_point() else 2) or x.shape[:2] != mask.shape:
            return x
        return x[mask.to(x.device) != 0]


@contextmanager
def padding_of(model: nn.Module) -> Iterator[Padding]:
    """That of the batches the model runs on inside."""
    padding = Padding()
    handle = model.register_forward_pre_hook(padding.look, with_kwargs=True)
    try:
        yield padding
    finally:
        handle.remove()

"""The logits among a model's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rank_search.errors import TaskError


def logits_of(outputs: Any) -> Any:
    """The `logits` of outputs with names, such as those of Hugging Face; other outputs as they are."""
    if isinstance(outputs, Tensor):
        return outputs
    found = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    return outputs if found is None else found


def token_logits(outputs: Any, ids: Tensor) -> Tensor:
    """Of a language model's outputs for token ids, batch × length: its logits, batch × length × tokens.

    Raises:
        TaskError: there are none of that shape.
    """
    found = logits_of(outputs)
    if not isinstance(found, Tensor) or found.dim() != 3 or found.shape[:2] != ids.shape:
        shown = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise TaskError(
            f"The language model gives {shown} for ids of shape {tuple(ids.shape)}; logits, batch × length × tokens, "
            "are expected. For other outputs write a class derived from rank_search.Task."
        )
    return found

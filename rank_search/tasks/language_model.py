"""A task for causal language models, made of token ids."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.layers import forward, in_evaluation
from rank_search.tasks.logits import logits_of
from rank_search.tasks.supervised import teacher_distance
from rank_search.tasks.task import Batch, Task


@final
@dataclass(frozen=True, eq=False)
class LanguageModel(Task):
    """A causal language model and its text as token ids: fine-tuned, and measured in nats a token.

    The model is called with ids, batch × length: by the name `input_ids` if its forward has such a parameter, as those
    of Hugging Face have, and without its cache; otherwise by position. Its outputs are the logits, or have them under
    the name `logits`. The text is cut into windows that do not overlap; what is left at its end is not used.

    Measured are `nats` (the mean of −ln p of each token but the first of a window), `perplexity` (its exponential),
    and `kl`, the mean of KL(dense ‖ model) over all positions, in nats: how far a model has moved, whatever the text.

    Attributes:
        network: the trained model.
        training_tokens, selection_tokens, test_tokens: token ids in one dimension. Without test tokens nothing is
            reported on test data.
        length: of a window, in tokens.
        windows: in a batch.
        compare: whether `kl` is measured, for which the dense model runs, too.
    """

    network: nn.Module
    training_tokens: Tensor
    selection_tokens: Tensor
    test_tokens: Tensor | None = None
    length: int = 128
    windows: int = 8
    compare: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot work in any trial.

        Raises:
            TaskError: the network is no module, or there are no token ids for one window.
        """
        if not isinstance(self.network, nn.Module):
            raise TaskError(f"The task's network is {type(self.network).__name__}; pass an nn.Module.")
        if self.length < 2 or self.windows < 1:
            raise TaskError(
                f"Windows of {self.length} tokens, {self.windows} in a batch, have nothing to predict; length is at "
                "least 2, and windows at least 1."
            )
        for name in ("training_tokens", "selection_tokens", "test_tokens"):
            if (tokens := getattr(self, name)) is not None or name != "test_tokens":
                _check_tokens(name, tokens, self.length)

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Any:
        return self._inputs(self._cut(self.selection_tokens)[:1])

    def training(self) -> Iterable[Batch]:
        windows = self._cut(self.training_tokens)
        return self._batches(windows[torch.randperm(len(windows))])

    def selection(self) -> Iterable[Batch]:
        return self._batches(self._cut(self.selection_tokens))

    def test(self) -> Iterable[Batch] | None:
        return None if self.test_tokens is None else self._batches(self._cut(self.test_tokens))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return _surprise(self._logits(model, batch), batch)

    def distilled_loss(
        self, model: nn.Module, teacher: nn.Module, batch: Batch, share: float, temperature: float
    ) -> Tensor:
        logits = self._logits(model, batch)
        with torch.no_grad():
            aims = self._logits(teacher, batch)
        return (1 - share) * _surprise(logits, batch) + share * teacher_distance(logits, aims, temperature)

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
        nats, kl, count = 0.0, 0.0, 0
        for batch in batches:
            logits = self._logits(model, batch)
            nats += float(_surprise(logits.double(), batch)) * len(batch)
            if self.compare:
                with in_evaluation(self.network):
                    dense = self._logits(self.network, batch)
                kl += float(teacher_distance(logits.double(), dense.double(), 1.0)) * len(batch)
            count += len(batch)
        mean = nats / count
        found = {"nats": mean, "perplexity": math.exp(mean) if mean < 700 else math.inf}
        return {**found, "kl": kl / count} if self.compare else found

    def _cut(self, tokens: Tensor) -> Tensor:
        count = len(tokens) // self.length
        return tokens[: count * self.length].reshape(count, self.length)

    def _batches(self, windows: Tensor) -> list[Tensor]:
        return [windows[start : start + self.windows] for start in range(0, len(windows), self.windows)]

    def _inputs(self, ids: Tensor) -> Any:
        taken = inspect.signature(self.network.forward).parameters
        if "input_ids" not in taken:
            return ids
        return {"input_ids": ids, **({"use_cache": False} if "use_cache" in taken else {})}

    def _logits(self, model: nn.Module, ids: Tensor) -> Tensor:
        found = logits_of(forward(model, self._inputs(ids)))
        if not isinstance(found, Tensor) or found.dim() != 3 or found.shape[:2] != ids.shape:
            shown = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise TaskError(
                f"The language model gives {shown} for ids of shape {tuple(ids.shape)}; logits, batch × length × "
                "tokens, are expected. For other outputs write a class derived from rank_search.Task."
            )
        return found


def _surprise(logits: Tensor, ids: Tensor) -> Tensor:
    """Mean of −ln p of each token, given those before it."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def _check_tokens(name: str, tokens: object, length: int) -> None:
    if not isinstance(tokens, Tensor) or tokens.dim() != 1 or tokens.is_floating_point() or len(tokens) < length:
        shape = f" of {tokens.dtype} and shape {tuple(tokens.shape)}" if isinstance(tokens, Tensor) else ""
        raise TaskError(
            f"{name} is a {type(tokens).__name__}{shape}; token ids are whole numbers in one dimension, at least the "
            f"{length} of a window."
        )

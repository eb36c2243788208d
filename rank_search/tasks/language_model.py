"""A task for language models, causal and masked, made of token ids."""

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
from rank_search.tasks.drawn_targets import drawn_cross_entropy
from rank_search.tasks.hidden_tokens import NOT_HIDDEN, with_hidden
from rank_search.tasks.logits import token_logits
from rank_search.tasks.supervised import teacher_distance
from rank_search.tasks.task import Batch, Task


@final
@dataclass(frozen=True, eq=False)
class LanguageModel(Task):
    """A language model, causal or masked, and its text as token ids: fine-tuned, and measured in nats a token.

    The model is called with ids, batch × length: by the name `input_ids` if its forward has such a parameter, as those
    of Hugging Face have, and without its cache; otherwise by position. Its outputs are the logits, or have them under
    the name `logits`. The text is cut into windows that do not overlap; what is left at its end is not used.

    Measured are `nats` (the mean of −ln p of each token but the first of a window), `perplexity` (its exponential),
    and `kl`, the mean of KL(dense ‖ model) over all positions, in nats: how far a model has moved, whatever the text.

    With a `mask_token` the model is a masked one, such as BERT: a share of each window's tokens is hidden behind it,
    and all of these are of the hidden tokens alone. Those of the selection and the test data are the same in every
    pass; those of the training data are drawn anew by torch's global generator.

    Attributes:
        network: the trained model.
        training_tokens, selection_tokens, test_tokens: token ids in one dimension. Without test tokens nothing is
            reported on test data.
        length: of a window, in tokens.
        windows: in a batch.
        compare: whether `kl` is measured, for which the dense model runs, too.
        mask_token: the id that hides a token; None: the model is causal.
        masked: the share of a window's tokens that are hidden; at least one is.
    """

    network: nn.Module
    training_tokens: Tensor
    selection_tokens: Tensor
    test_tokens: Tensor | None = None
    length: int = 128
    windows: int = 8
    compare: bool = True
    mask_token: int | None = None
    masked: float = 0.15

    def __post_init__(self) -> None:
        """Refuse what cannot work in any trial.

        Raises:
            TaskError: the network is no module, there are no token ids for one window, or the share that is hidden is
                none.
        """
        if not isinstance(self.network, nn.Module):
            raise TaskError(f"The task's network is {type(self.network).__name__}; pass an nn.Module.")
        if self.length < 2 or self.windows < 1:
            raise TaskError(
                f"Windows of {self.length} tokens, {self.windows} in a batch, have nothing to predict; length is at "
                "least 2, and windows at least 1."
            )
        if not 0 < self.masked <= 1:
            raise TaskError(f"A share of {self.masked} of the tokens is hidden; masked lies above 0 and is at most 1.")
        for name in ("training_tokens", "selection_tokens", "test_tokens"):
            if (tokens := getattr(self, name)) is not None or name != "test_tokens":
                _check_tokens(name, tokens, self.length)

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Any:
        return self._inputs(self._cut(self.selection_tokens)[:1])

    def training(self) -> Iterable[Batch]:
        windows = self._cut(self.training_tokens)
        return self._batches(windows[torch.randperm(len(windows))], None)

    def selection(self) -> Iterable[Batch]:
        return self._batches(self._cut(self.selection_tokens), _always_the_same())

    def test(self) -> Iterable[Batch] | None:
        return None if self.test_tokens is None else self._batches(self._cut(self.test_tokens), _always_the_same())

    def inputs(self, batch: Batch) -> Any:
        return self._inputs(_ids(batch))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return _surprise(self._logits(model, batch), batch)

    def distilled_loss(
        self, model: nn.Module, teacher: nn.Module, batch: Batch, share: float, temperature: float
    ) -> Tensor:
        logits = self._logits(model, batch)
        with torch.no_grad():
            aims = self._logits(teacher, batch)
        distance = teacher_distance(_looked_at(logits, batch), _looked_at(aims, batch), temperature)
        return (1 - share) * _surprise(logits, batch) + share * distance

    def sampled_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = _looked_at(self._logits(model, batch), batch)
        return drawn_cross_entropy(logits if self.mask_token is not None else logits[:, :-1])

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
        nats, kl, count = 0.0, 0.0, 0
        for batch in batches:
            logits = self._logits(model, batch)
            examples = len(_ids(batch))
            nats += float(_surprise(logits.double(), batch)) * examples
            if self.compare:
                with in_evaluation(self.network):
                    dense = self._logits(self.network, batch)
                ours, theirs = _looked_at(logits.double(), batch), _looked_at(dense.double(), batch)
                kl += float(teacher_distance(ours, theirs, 1.0)) * examples
            count += examples
        mean = nats / count
        found = {"nats": mean, "perplexity": math.exp(mean) if mean < 700 else math.inf}
        return {**found, "kl": kl / count} if self.compare else found

    def _cut(self, tokens: Tensor) -> Tensor:
        count = len(tokens) // self.length
        return tokens[: count * self.length].reshape(count, self.length)

    def _batches(self, windows: Tensor, generator: torch.Generator | None) -> list[Batch]:
        if self.mask_token is None:
            return list(torch.split(windows, self.windows))
        parts = with_hidden(windows, self.mask_token, self.masked, generator)
        return list(zip(*(torch.split(each, self.windows) for each in parts), strict=True))

    def _inputs(self, ids: Tensor) -> Any:
        taken = inspect.signature(self.network.forward).parameters
        if "input_ids" not in taken:
            return ids
        return {"input_ids": ids, **({"use_cache": False} if "use_cache" in taken else {})}

    def _logits(self, model: nn.Module, batch: Batch) -> Tensor:
        ids = _ids(batch)
        return token_logits(forward(model, self._inputs(ids)), ids)


def _always_the_same() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _ids(batch: Batch) -> Tensor:
    """Of a batch: token ids, or a pair of those with some hidden and the hidden ones."""
    found: Tensor = batch if isinstance(batch, Tensor) else batch[0]
    return found


def _surprise(logits: Tensor, batch: Batch) -> Tensor:
    """Mean of −ln p of each token, given those before it; or of each hidden token."""
    if isinstance(batch, Tensor):
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
    return F.cross_entropy(logits.flatten(0, 1), batch[1].flatten(), ignore_index=NOT_HIDDEN)


def _looked_at(logits: Tensor, batch: Batch) -> Tensor:
    """Those of all positions, or of the hidden tokens."""
    return logits if isinstance(batch, Tensor) else logits[batch[1] != NOT_HIDDEN]


def _check_tokens(name: str, tokens: object, length: int) -> None:
    if not isinstance(tokens, Tensor) or tokens.dim() != 1 or tokens.is_floating_point() or len(tokens) < length:
        shape = f" of {tokens.dtype} and shape {tuple(tokens.shape)}" if isinstance(tokens, Tensor) else ""
        raise TaskError(
            f"{name} is a {type(tokens).__name__}{shape}; token ids are whole numbers in one dimension, at least the "
            f"{length} of a window."
        )

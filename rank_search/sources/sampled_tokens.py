"""Text that a language model writes by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rank_search.errors import SourceError
from rank_search.layers import Example, forward, in_evaluation, tensors_of
from rank_search.tasks import token_logits


@torch.no_grad()
def sampled_sequences(
    model: nn.Module,
    example: Example,
    *,
    batches: int,
    batch_size: int,
    length: int,
    seed: int,
    first: int | None = None,
    temperature: float = 1.0,
) -> list[Example]:
    """Batches of token sequences, each token drawn from what the model predicts after those before it.

    The model is called as the example is: with ids, batch × length, by position, or by name under `input_ids`, with a
    mask of ones under `attention_mask` where the example has one; its outputs are logits, batch × length × tokens, or
    have them under `logits`. As in LLM-QAT (Liu et al. 2023), whose sequences begin with a token drawn uniformly.
    Complexity: `length` forwards for each batch, of 1 to `length` tokens.

    Args:
        example: what one forward takes.
        length: of each sequence, in tokens.
        first: the token that each begins with, such as that of a text's beginning; None: drawn uniformly.
        temperature: of the probabilities; 1 is the model's own.

    Raises:
        SourceError: the example is no token ids, or the model does not run on them.
        TaskError: the model gives no logits.

    >>> logits = nn.Embedding.from_pretrained(torch.tensor([[0.0, 99.0], [99.0, 0.0]]))  # 1 after 0, and 0 after 1
    >>> sampled_sequences(
    ...     logits, torch.zeros(1, 4, dtype=torch.long), batches=1, batch_size=2, length=5, seed=0, first=1
    ... )
    [tensor([[1, 0, 1, 0, 1],
            [1, 0, 1, 0, 1]])]
    """
    ids = _ids(example)
    if temperature <= 0 or length < 1:
        raise SourceError(
            f"Sequences of {length} tokens at a temperature of {temperature:g} cannot be sampled; the length is at "
            "least 1, and the temperature above 0."
        )
    generator = torch.Generator().manual_seed(seed)
    with in_evaluation(model):
        tokens = _logits(model, _called(example, ids[:1, :1])).shape[-1]
        if first is not None and not 0 <= first < tokens:
            raise SourceError(f"The first token {first} is none of the model's {tokens}.")
        found = []
        for _ in range(batches):
            if first is None:
                begun = torch.randint(tokens, (batch_size, 1), generator=generator)
            else:
                begun = torch.full((batch_size, 1), first)
            found.append(_called(example, _continued(model, example, begun.to(ids), length, temperature, generator)))
    return found


def _continued(
    model: nn.Module, example: Example, ids: Tensor, length: int, temperature: float, generator: torch.Generator
) -> Tensor:
    while ids.shape[1] < length:
        logits = _logits(model, _called(example, ids))[:, -1]
        probabilities = (logits.double().cpu() / temperature).softmax(-1)
        drawn = torch.multinomial(probabilities, 1, generator=generator)
        ids = torch.cat([ids, drawn.to(ids)], dim=1)
    return ids


def _ids(example: Example) -> Tensor:
    named = example.get("input_ids") if isinstance(example, Mapping) else None
    found = named if named is not None else next(iter(tensors_of(example)), None)
    if not isinstance(found, Tensor) or found.dim() != 2 or found.is_floating_point() or not found.numel():
        shown = (
            "nothing" if found is None else f"{str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}"
        )
        raise SourceError(
            f"The example holds {shown}; sequences are sampled from a language model, which takes token ids, batch × "
            "length. For images use synthetic or gaussian inputs."
        )
    return found


def _called(example: Example, ids: Tensor) -> Any:
    """What the model is called with for these ids."""
    if isinstance(example, Mapping):
        own = _ids(example)
        return {
            name: ids if each is own else torch.ones_like(ids) if name == "attention_mask" else each
            for name, each in example.items()
        }
    return (ids, *example[1:]) if isinstance(example, tuple) else ids


def _logits(model: nn.Module, inputs: Example) -> Tensor:
    ids = _ids(inputs)
    try:
        outputs = forward(model, inputs)
    except Exception as error:
        raise SourceError(
            f"The language model does not run on ids of shape {tuple(ids.shape)}; its forward raised "
            f"{type(error).__name__}: {error}. Sampling takes a model that runs on any batch and length up to the one "
            "asked for. If that is longer than the model takes, ask for less ([data] length)."
        ) from error
    return token_logits(outputs, ids)

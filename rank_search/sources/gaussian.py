"""Gaussian noise in the form of a model's inputs: the control beside every other source."""

from __future__ import annotations

import torch
from torch import nn

from rank_search.layers import Example
from rank_search.sources.input_form import InputForm


def gaussian_inputs(
    example: Example, *, batches: int, batch_size: int, seed: int, model: nn.Module | None = None
) -> list[Example]:
    """Batches of independent numbers from N(0, 1), in the form of an example.

    Tensors that have the batch along their first dimension, as the first tensor has, are drawn; others, such as a table
    of positions, stay as they are.

    Args:
        example: what one forward takes.
        model: which says whether the batch is the second dimension, as of recurrent networks that take time first.

    Raises:
        SourceError: the example has whole numbers in it, or no batch.

    >>> import torch
    >>> one, other = gaussian_inputs({"image": torch.zeros(1, 3, 8, 8)}, batches=2, batch_size=4, seed=0)
    >>> one["image"].shape, bool((one["image"] == other["image"]).any())
    (torch.Size([4, 3, 8, 8]), False)
    """
    form, generator = InputForm.of(example, model), torch.Generator().manual_seed(seed)
    return [form.filled(form.noise(batch_size, generator)) for _ in range(batches)]

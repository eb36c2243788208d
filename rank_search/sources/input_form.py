"""Which tensors of an example hold its numbers, and a batch with others in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor, nn

from rank_search.errors import SourceError
from rank_search.layers import Example, tensors_of, with_tensors
from rank_search.tasks import batch_dimension


@final
@dataclass(frozen=True)
class InputForm:
    """What an input is made of.

    Attributes:
        example: what one forward takes.
        along: the dimension of its tensors that counts the examples.
        length: of that dimension in the example.
    """

    example: Example
    along: int
    length: int

    @classmethod
    def of(cls, example: Example, model: nn.Module | None = None) -> Self:
        """The form of an example. Tensors have the batch along the dimension of the first one that is as long there.

        Args:
            model: which says whether it is the second dimension, as of recurrent networks that take time first.

        Raises:
            SourceError: there is no batch, or it holds whole numbers.
        """
        first = next((each for each in tensors_of(example) if each.dim()), None)
        if first is None:
            raise SourceError(
                "The example has no tensor with a batch in it, so nothing can be drawn like it. An example is what one "
                "forward takes, as a batch of 1."
            )
        along = 0 if model is None or not isinstance(example, Tensor) else batch_dimension(model, example)
        form = cls(example, along, first.shape[along])
        for each in form._drawn():
            if not each.is_floating_point():
                raise SourceError(
                    f"The example has whole numbers in it: {str(each.dtype).removeprefix('torch.')} of shape "
                    f"{tuple(each.shape)}. Only numbers of floating point are drawn from a normal distribution or "
                    "moved by gradients. For token ids sample from the model itself (sampled_sequences); otherwise fit "
                    "to the weights alone."
                )
        return form

    def sizes(self, count: int) -> list[tuple[int, ...]]:
        """The shapes of the tensors that hold the numbers of so many examples."""
        return [(*each.shape[: self.along], count, *each.shape[self.along + 1 :]) for each in self._drawn()]

    def filled(self, numbers: Sequence[Tensor]) -> Example:
        """The example with these numbers in it, in its dtypes and on its devices; other tensors stay."""
        left = iter(numbers)
        return with_tensors(self.example, lambda each: next(left).to(each) if self._is_drawn(each) else each)

    def noise(self, count: int, generator: torch.Generator) -> list[Tensor]:
        """Numbers of so many examples from N(0, 1), in float32 on the CPU."""
        return [torch.randn(size, generator=generator) for size in self.sizes(count)]

    def _drawn(self) -> list[Tensor]:
        return [each for each in tensors_of(self.example) if self._is_drawn(each)]

    def _is_drawn(self, tensor: Tensor) -> bool:
        return tensor.dim() > self.along and tensor.shape[self.along] == self.length

"""Inputs on which the batch norms of a network see the statistics that they have stored: made from noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.errors import SourceError
from rank_search.layers import Example, in_evaluation
from rank_search.sources.input_form import InputForm
from rank_search.sources.input_scale import UNIT, InputScale, fitting_scale, run_on_made
from rank_search.sources.norm_statistics import NormInputs, norm_inputs, norms_distance, stored_norms
from rank_search.sources.settings import SynthesisSettings
from rank_search.tasks import logits_of, seeded

Progress = Callable[[int, int], None]
"""Told how many steps are done, and how many there are in all."""

Move = Callable[[Tensor], Tensor]

_OF_IMAGES: Final = 4
"""Dimensions of a batch of images; volumes have more, signals and vectors less."""


def synthetic_inputs(
    model: nn.Module,
    example: Example,
    *,
    settings: SynthesisSettings | None = None,
    seed: int,
    progress: Progress | None = None,
) -> list[Example]:
    """Batches of inputs, in the form of an example, on which a network's batch norms see the statistics they stored.

    Each batch begins as Gaussian noise on the scale of the model's inputs (see `fitting_scale`), and Adam moves its
    numbers, nothing else, to a lower Σ over the batch norms of `statistics_distance`, plus the weighted cross-entropy
    to a random class of each example, plus the weighted total variation; see `SynthesisSettings`. Batch norms are
    watched at their inputs. The model runs in evaluation mode, and afterwards is as before. The same seed gives the
    same inputs on the same machine. Complexity: `steps` forwards and backwards of each batch.

    Args:
        settings: None: the defaults.
        progress: told after each step.

    Raises:
        SourceError: the model has no batch norms with statistics, none that its inputs lead to, or does not run on
            them; or the example has whole numbers in it.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    >>> few = SynthesisSettings(batch_size=64, steps=2)
    >>> [each.shape for each in synthetic_inputs(model, torch.zeros(1, 3, 8, 8), settings=few, seed=0)]
    [torch.Size([64, 3, 8, 8])]
    """
    settings = settings or SynthesisSettings()
    if not stored_norms(model):
        raise SourceError(
            "The model has no batch norms with running statistics, which synthetic inputs are made to agree with. "
            'Take the source "gaussian" or "none". (A language model writes its own sequences when its study runs; '
            "they are not drawn.)"
        )
    form = InputForm.of(example, model)
    total = settings.batches * settings.steps
    found = []
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed), torch.enable_grad(), in_evaluation(model):
        scale = fitting_scale(model, form)
        for number in range(settings.batches):
            batch = _Batch(model, form, settings, generator, scale)
            found.append(batch.made(partial(_tell, progress, number * settings.steps, total)))
    return found


def _tell(progress: Progress | None, before: int, total: int, step: int) -> None:
    if progress:
        progress(before + step, total)


class _Batch:
    """One batch while it is made."""

    def __init__(
        self,
        model: nn.Module,
        form: InputForm,
        settings: SynthesisSettings,
        generator: torch.Generator,
        scale: InputScale = UNIT,
    ) -> None:
        self._model, self._form, self._settings, self._generator = model, form, settings, generator
        self._scale = scale
        self._norms, self._count = stored_norms(model), settings.batch_size
        device = next((each.device for each in model.parameters()), torch.device("cpu"))
        self._numbers = [each.to(device).requires_grad_() for each in form.noise(self._count, generator)]
        self._classes: Tensor | None = None

    def made(self, tell: Callable[[int], None]) -> Example:
        """Its inputs, after all steps."""
        rate = self._settings.learning_rate
        optimizer = torch.optim.Adam(self._numbers, lr=rate)
        for step in range(self._settings.steps):
            optimizer.param_groups[0]["lr"] = _cosine(rate, step / self._settings.steps)
            for tensor, gradient in zip(self._numbers, self._gradients(), strict=True):
                tensor.grad = gradient
            optimizer.step()
            tell(step + 1)
        if not all(bool(each.isfinite().all()) for each in self._numbers):
            raise SourceError(
                "The synthetic inputs are not finite. Look for NaN or infinity in the model's weights and in the "
                "statistics of its batch norms; otherwise take a lower learning rate."
            )
        return self._form.filled([self._scale.of(each.detach()) for each in self._numbers])

    def _gradients(self) -> list[Tensor]:
        """Of the loss, under one random shift and flip, with respect to the numbers."""
        moved = self._moved()
        size = min(self._settings.at_once or self._count, self._count)
        parts = [slice(start, min(start + size, self._count)) for start in range(0, self._count, size)]
        if len(parts) == 1:
            seen, rest = self._run(parts[0], moved)
            return self._led_back(self._distance(seen) + rest)
        return self._of_parts(parts, moved)

    def _of_parts(self, parts: Sequence[slice], moved: Move) -> list[Tensor]:
        """The same gradient, with the activations of one part at a time: first the statistics of all, then theirs."""
        with torch.no_grad():
            whole = NormInputs.joined([self._run(part, moved)[0] for part in parts])
        whole.require_gradients()
        slopes = torch.autograd.grad(self._distance(whole), [*whole.means, *whole.squares])
        total, before = [torch.zeros_like(each) for each in self._numbers], [0] * len(slopes)
        for part in parts:
            seen, rest = self._run(part, moved)
            own = [*seen.means, *seen.squares]
            slices = [slope[start : start + len(each)] for slope, start, each in zip(slopes, before, own, strict=True)]
            before = [start + len(each) for start, each in zip(before, own, strict=True)]
            led = sum(((slope * each).sum() for slope, each in zip(slices, own, strict=True)), rest)
            for each, gradient in zip(total, self._led_back(led), strict=True):
                each += gradient
        return total

    def _distance(self, seen: NormInputs) -> Tensor:
        settings = self._settings
        return norms_distance(seen, settings.statistics, settings.slack, settings.emphasis)

    def _led_back(self, loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, self._numbers, materialize_grads=True))

    def _run(self, part: slice, moved: Move) -> tuple[NormInputs, Tensor]:
        """What the norms see of some examples, and these examples' share of all other terms of the loss."""
        numbers = [each[self._at(part)] for each in self._numbers]
        with norm_inputs(self._norms) as seen:
            outputs = logits_of(run_on_made(self._model, self._form, [self._scale.of(moved(each)) for each in numbers]))
        settings, share = self._settings, (part.stop - part.start) / self._count
        rest = settings.class_evidence * self._surprise(outputs, part) if settings.class_evidence else 0.0
        rest += settings.smoothness * sum(map(_variation, numbers)) if settings.smoothness else 0.0
        return seen, share * torch.as_tensor(rest)

    def _surprise(self, outputs: Any, part: slice) -> Tensor | float:
        """Mean of −ln p of each example's class; 0 where the outputs are no logits, batch × classes."""
        if not isinstance(outputs, Tensor) or outputs.dim() != 2 or len(outputs) != part.stop - part.start:
            return 0.0
        if self._classes is None:
            self._classes = torch.randint(outputs.shape[1], (self._count,), generator=self._generator)
        return F.cross_entropy(outputs, self._classes[part].to(outputs.device))

    def _moved(self) -> Move:
        """A random shift, and perhaps a flip."""
        most = self._settings.jitter
        shifts = torch.randint(-most, most + 1, (3,), generator=self._generator).tolist()
        flip = self._settings.flips and bool(torch.rand(1, generator=self._generator) < 0.5)
        return partial(_move, shifts=shifts, flip=flip)

    def _at(self, part: slice) -> tuple[slice, ...]:
        return (slice(None),) * self._form.along + (part,)


def _cosine(rate: float, share: float) -> float:
    return 0.5 * rate * (1 + math.cos(math.pi * share))


def _move(numbers: Tensor, shifts: Sequence[int], flip: bool) -> Tensor:
    """All examples shifted along up to three dimensions of space, around the edges; images and volumes mirrored too."""
    places = range(2, min(numbers.dim(), 2 + len(shifts)))
    moved = numbers.roll([shifts[place - 2] for place in places], tuple(places)) if len(places) else numbers
    return moved.flip(-1) if flip and numbers.dim() >= _OF_IMAGES else moved


def _variation(numbers: Tensor) -> Tensor | float:
    """The mean absolute difference of neighbors, summed over the dimensions of space."""
    return sum((numbers.diff(dim=place).abs().mean() for place in range(2, numbers.dim())), start=0.0)

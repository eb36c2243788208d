"""A task without splits: one signal, or several, and the network that stands for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rank_search.errors import TaskError
from rank_search.representations.codecs import codec_curves
from rank_search.representations.rendering import coordinates
from rank_search.representations.signals import Signals, Source, decibels
from rank_search.tasks import Batch, Task

_AT_ONCE: Final = 1 << 16


@final
@dataclass(frozen=True, eq=False)
class Representation(Task):
    """A network that stands for one signal, or for several: compressing it compresses them.

    The whole signal is what is trained on, selected by and reported of: there is no test data. Trials measure `psnr`,
    in decibels, and `bits_per_sample` beside what they always measure. The loss is the squared error as a share of the
    signal's variance, whatever its scale, so that strengths of entropy between 0.01 and 1 are the useful ones.

    Attributes:
        network: trained; it takes coordinates n × dimensions on [−1, 1], and gives n × channels. See
            `rank_search.representations` for networks, and for training one. For several signals it gives
            n × signals × channels (see `rank_search.representations.several`).
        signal: an image or WAV file, an array of size × … × channels, or a `Signal`; or a list of them, of one shape.
            Then measurements are of all samples of all of them.
        batch: random coordinates in a batch, each once in an epoch, by torch's global generator; None: an epoch is one
            batch, the whole signal.
    """

    network: nn.Module
    signal: Source | Sequence[Source]
    batch: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work in any trial.

        Raises:
            TaskError: the network is no module, or gives other channels than the signal has; or the signal is none.
        """
        if not isinstance(self.network, nn.Module):
            raise TaskError(f"The task's network is {type(self.network).__name__}; pass an nn.Module.")
        if self.batch is not None and self.batch < 1:
            raise TaskError(f"A batch has {self.batch} coordinates; it has at least one. None takes the whole signal.")
        given, wanted = self._outputs(), (2, *self.signals.targets.shape[1:])
        if given != wanted:
            several = "" if len(wanted) == 2 else f" {wanted[1]} signals of"
            raise TaskError(
                f"For 2 coordinates of {len(self._sizes)} dimensions the network gives the shape {given}; there are"
                f"{several} {wanted[-1]} channels, so that {wanted} is expected."
            )

    @torch.no_grad()
    def _outputs(self) -> tuple[int, ...]:
        try:
            return tuple(self.network(self._inputs[:1].expand(2, -1)).shape)
        except Exception as error:
            raise TaskError(
                f"The network does not take coordinates of {len(self._sizes)} dimensions: {error}. Its forward "
                "takes n × dimensions."
            ) from error

    @cached_property
    def signals(self) -> Signals:
        """What it is of, read."""
        return Signals.of(self.signal)

    @property
    def _sizes(self) -> tuple[int, ...]:
        return self.signals.each[0].sizes

    @cached_property
    def _inputs(self) -> Tensor:
        return coordinates(self._sizes)

    @property
    def _targets(self) -> Tensor:
        return self.signals.targets

    @cached_property
    def _variance(self) -> float:
        return self.signals.variance

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Tensor:
        return self._inputs[:1]

    def training(self) -> Iterable[Batch]:
        if self.batch is None:
            return [(self._inputs, self._targets)]
        return _Drawn(self._inputs, self._targets, self.batch)

    def selection(self) -> Iterable[Batch]:
        return list(zip(torch.split(self._inputs, _AT_ONCE), torch.split(self._targets, _AT_ONCE), strict=True))

    def test(self) -> None:
        return None

    def selection_examples(self) -> int:
        return 0  # samples of one signal are no independent examples

    def signal_samples(self) -> int:
        return self.signals.samples

    def reference_curves(self) -> Mapping[str, Sequence[Mapping[str, float]]]:
        return codec_curves(self.signals.each)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = batch
        return F.mse_loss(model(inputs), targets) / self._variance

    def distilled_loss(
        self, model: nn.Module, teacher: nn.Module, batch: Batch, share: float, temperature: float
    ) -> Tensor:
        inputs, targets = batch
        outputs = model(inputs)
        with torch.no_grad():
            aims = teacher(inputs)
        apart = (1 - share) * F.mse_loss(outputs, targets) + share * F.mse_loss(outputs, aims)
        return apart / self._variance

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
        squares, count, signals = 0.0, 0, self.signals
        for inputs, targets in batches:
            found = model(inputs).double().clamp(signals.low, signals.high)
            squares += float((found - targets).square().sum())
            count += targets.numel()
        return {"psnr": decibels(signals, squares / count)}


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Coordinates and values in random order, a fresh one for each pass."""

    inputs: Tensor
    targets: Tensor
    size: int

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for some in torch.split(torch.randperm(len(self.inputs)), self.size):
            yield self.inputs[some], self.targets[some]

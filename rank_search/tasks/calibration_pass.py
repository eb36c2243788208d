"""Passes over the calibration batches while a model is being factorized: what its layers see, in which order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn

from rank_search.layers import Example, Layer
from rank_search.tasks.calibration import Watcher, watch_forward, watch_loss, watchers
from rank_search.tasks.task import Task


class CalibrationPass(ABC):
    """Batches to take moments of inputs on, and how a model runs on them.

    Attributes:
        of_bases: whether the bases of the dense model's layers are made of the moments on these very batches.
    """

    of_bases: ClassVar[bool]

    @abstractmethod
    def watch(self, model: nn.Module, watching: Mapping[str, Watcher]) -> None:
        """Run the model on all batches; each of these takes in what its layer sees."""

    def moments(self, model: nn.Module, layers: Mapping[str, Layer]) -> dict[str, Tensor]:
        """E[x·xᵀ] of what these layers see in this model, as `input_moments` has them, and nothing said.

        Layers that no batch reaches, or whose inputs are not finite, are left out.
        """
        sums = watchers(layers)
        self.watch(model, sums)
        found = {name: each.mean() for name, each in sums.items()}
        return {name: each for name, each in found.items() if each is not None and bool(each.isfinite().all())}

    def order(self, model: nn.Module, layers: Mapping[str, Layer]) -> list[str]:
        """The layers in the order in which they, or what is tied to them, first run; those that do not run at last."""
        found: list[str] = []
        calls = {user.name: _FirstCall(name, user, found) for name, layer in layers.items() for user in layer.users}
        self.watch(model, calls)
        return list(dict.fromkeys([*found, *layers]))


class _FirstCall:
    """Puts down that a layer has run."""

    def __init__(self, name: str, user: Layer, found: list[str]) -> None:
        self.layer, self.count, self.is_full = user, 0, False
        self._name, self._found = name, found

    def take(self, x: Tensor) -> None:
        """Note the first call."""
        if not self.count:
            self._found.append(self._name)
        self.count += 1


@final
@dataclass(frozen=True, eq=False)
class LossPass(CalibrationPass):
    """The first batches of a task's training pass, on which it computes its loss.

    Attributes:
        norm_batches: of how many of them batch norms take their statistics again before each block; 0: they do not.
        known_order: the order in which the dense model's layers run, if it has been looked at.
    """

    of_bases = True

    task: Task
    batches: int
    rng_seed: int = 0
    norm_batches: int = 0
    known_order: tuple[str, ...] = ()

    def order(self, model: nn.Module, layers: Mapping[str, Layer]) -> list[str]:
        if layers.keys() <= set(self.known_order):
            return [name for name in self.known_order if name in layers]
        return super().order(model, layers)

    def watch(self, model: nn.Module, watching: Mapping[str, Watcher]) -> None:
        watch_loss(self.task, model, watching, self.batches, self.rng_seed)


@final
@dataclass(frozen=True, eq=False)
class ForwardPass(CalibrationPass):
    """Inputs of the model, which runs in evaluation mode."""

    of_bases = False

    batches: Sequence[Example]

    def watch(self, model: nn.Module, watching: Mapping[str, Watcher]) -> None:
        watch_forward(model, watching, self.batches)

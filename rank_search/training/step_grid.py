"""Steps for trained weights, found after training: a grid of them is coded and measured, and the least D + λ·R wins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from rank_search.coding import Grid, encode
from rank_search.quantization import batch_statistics, felt_by_parameter, latents, put, step_for
from rank_search.tasks import Batch, Task, task_loss

_COARSE: Final = range(-12, 13, 3)
"""Powers of two of the error that a bit is worth, beside its price in training, tried for weights and biases alike."""

_FINE: Final = (2, 1)
"""Then each of the two alone, so many powers of two up and down, while that is better."""

_LEAST: Final = 1e-6
"""Of what the outputs feel most: what they do not feel still has a step."""

_WATCHED: Final = 2  # batches whose outputs are differentiated

Exponents = tuple[int, int]
"""Of weights, and of what has one dimension."""


@dataclass(frozen=True)
class OnSteps:
    """A state on grids, and its D + λ·R."""

    state: Mapping[str, Tensor]
    grids: Mapping[str, Grid]
    objective: float


@dataclass(frozen=True)
class StepGrid:
    """What steps are judged by.

    Attributes:
        batches: of training data, the same for all.
        price: of a bit, in units of the loss.
    """

    task: Task
    model: nn.Module
    batches: Sequence[Batch]
    price: float

    @torch.no_grad()
    def judged(self, grids: Mapping[str, Grid]) -> OnSteps:
        """The model as it is, its tensors being on these grids: D is the mean loss, R the bits of the coded state."""
        state = {name: each.detach().clone() for name, each in self.model.state_dict().items()}
        losses = [float(task_loss(self.task, self.model, batch)) for batch in self.batches]
        bits = 8 * len(encode(self.model.state_dict(), dict(grids)))
        return OnSteps(state, dict(grids), sum(losses) / len(losses) + self.price * bits)

    def best(self) -> OnSteps:
        """The best steps for the model's weights: of each tensor as its outputs feel it, at two slopes.

        A tensor's step is √(c·s/h): h what a squared error of one in one of its numbers does to the outputs (see
        `felt_by_parameter`), s the error that a bit is worth, one for weights and one for what has one dimension. About
        twenty pairs of them are coded and measured.
        """
        felt = self._felt()
        exact = {name: each.detach().clone() for name, each in latents(self.model).items()}
        known: dict[Exponents, OnSteps] = {}

        def at(exponents: Exponents) -> OnSteps:
            if exponents not in known:
                known[exponents] = self.judged(self._put(exact, felt, exponents))
            return known[exponents]

        middle = min(((each, each) for each in _COARSE), key=lambda each: at(each).objective)
        return at(_descended(at, middle))

    def _felt(self) -> dict[str, float]:
        found = felt_by_parameter(self.model, self.task.loss, self.batches[:_WATCHED])
        largest = max(found.values(), default=0.0) or 1.0
        return {name: max(found.get(name, 0.0), _LEAST * largest) for name in latents(self.model)}

    @torch.no_grad()
    def _put(self, exact: Mapping[str, Tensor], felt: Mapping[str, float], exponents: Exponents) -> dict[str, Grid]:
        slopes = [self.price * 2.0**each for each in exponents]
        return {
            name: put(parameter, exact[name], step_for(slopes[parameter.dim() < 2], felt[name]))
            for name, parameter in latents(self.model).items()
        }


def _descended(at: Callable[[Exponents], OnSteps], middle: Exponents) -> Exponents:
    for width in _FINE:
        while True:
            weights, vectors = middle
            near = [(weights + width, vectors), (weights - width, vectors)]
            near += [(weights, vectors + width), (weights, vectors - width)]
            best = min((middle, *near), key=lambda each: at(each).objective)
            if best == middle:
                break
            middle = best
    return middle


def round_to_best_steps(
    task: Task,
    model: nn.Module,
    trained: Callable[[], Mapping[str, Grid]],
    untrained: Mapping[str, Tensor] | None,
    batches: Iterable[Batch],
    price: float,
) -> dict[str, Grid]:
    """Round all latents of a model in place; its grids are returned.

    Three are compared by D + λ·R: the weights and steps as they were trained, the same weights on the best steps of a
    grid, and, on such steps, the weights that no entropy penalty has seen.

    Args:
        trained: rounds the model as it was trained.
        untrained: the state of the model before training, if that is worth coding; None: it is not.
    """
    search = StepGrid(task, model, list(batches), price)
    with batch_statistics(model):
        before = {name: each.detach().clone() for name, each in model.state_dict().items()}
        found = [search.judged(trained())]
        for state in (before, untrained):
            if state is not None:
                model.load_state_dict(state)
                found.append(search.best())
        best = min(found, key=lambda each: each.objective)
        model.load_state_dict(best.state)
    return dict(best.grids)

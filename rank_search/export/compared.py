"""What was written is run beside the model, and must give the same outputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from rank_search.errors import ExportError
from rank_search.export.arguments import Arguments
from rank_search.export.plain_outputs import foreign, without_foreign
from rank_search.export.quiet import quiet, said
from rank_search.export.tracing import Place, resized
from rank_search.layers import Call, Example, copied, tensor_distance, tensors_of
from rank_search.programs import BATCH, Sizes
from rank_search.tasks import Given, Random, Task, seeded, set_random_states, watched

CLOSE: Final = 1e-4
"""How far outputs may differ, relative to the largest: another runtime, or another layout, adds in another order."""
WIDENED: Final = (torch.bfloat16, torch.float64)
"""Types whose products onnxruntime does not have on a CPU."""

Inputs = tuple[Tensor, ...]
"""The tensors of a call, in the order of the arguments' names."""

_log = logging.getLogger(__name__)


@final
@dataclass
class Beside:
    """A model, and what was written of it.

    Attributes:
        model: a separate copy, as a forward may change buffers.
        written: called like the model; by the names of its inputs, if the example is.
        sizes: what it takes; inputs of other sizes are not compared.
        same_draws: whether it draws the random numbers that the model draws.
        called_like_model: whether it takes all that the model takes, numbers and switches too; not tensors alone.
        worst: how far the outputs differed at most.
        spare: a copy to try things on.
        wide: what was written in the place of the model, in float32; it is what is compared with.
        compared: the shapes that were.
    """

    model: nn.Module
    written: nn.Module
    sizes: Sizes
    same_draws: bool
    spare: nn.Module
    wide: nn.Module | None = None
    called_like_model: bool = False
    worst: float = 0.0
    compared: frozenset[tuple[tuple[int, ...], ...]] = frozenset()

    @classmethod
    def of(
        cls,
        model: nn.Module,
        written: nn.Module,
        sizes: Sizes,
        *,
        same_draws: bool = True,
        wide: nn.Module | None = None,
        called_like_model: bool = False,
    ) -> Beside:
        """With copies of the model."""
        return cls(copied(model), written, sizes, same_draws, copied(model), wide, called_like_model)

    def check(self, example: Example, task: Task | None = None) -> None:
        """Compare on the example, on other batches and sizes that were exported, and on a task's selection data.

        Raises:
            ExportError: the outputs differ, or a dimension that was to be dynamic was seen at one size only.
        """
        arguments = Arguments.of(self.model, example)
        inputs = arguments.tensors
        with torch.no_grad(), seeded(0), watched(self.model, partial(self._compare, arguments)):
            outputs = arguments.call(inputs).on(self.model)
            if task is not None and self._open():
                task.evaluate(self.model, task.selection())
            for other in _others(inputs, self.sizes):
                if self._seen_once() and self._runs(arguments, other):
                    arguments.call(other).on(self.model)
        if left := foreign(outputs):
            _log.warning("Left out of what the written model gives, as no graph can hold it: %s.", ", ".join(left))
        if not self.worst <= CLOSE:
            raise ExportError(f"The outputs of what was written differ from the model's by up to {self.worst:.3g}.")
        for place, dimension in self._seen_once():
            raise ExportError(
                f"The model took only one size in dimension {dimension} of input {self.sizes.names[place]!r}; a "
                "dynamic dimension is compared at two. Leave it out of --dynamic, or have data of two sizes in "
                "selection()."
            )

    def _open(self) -> list[Place]:
        shapes = self.sizes.shapes
        places = [(place, dimension) for place, shape in enumerate(shapes) for dimension in range(len(shape))]
        return [each for each in places if self.sizes.varies(*each)]

    def _seen_once(self) -> list[Place]:
        """Dimensions that may vary, and did not so far."""
        return [
            (place, dimension)
            for place, dimension in self._open()
            if len({shapes[place][dimension] for shapes in self.compared}) < 2
        ]

    def _runs(self, arguments: Arguments, inputs: Inputs) -> bool:
        """Whether these sizes were exported, and the model itself takes them."""
        if self.sizes.complaint([each.shape for each in inputs]):
            return False
        try:
            arguments.call(inputs).on(self.spare)
        except Exception:  # noqa: BLE001 - for any reason; it says nothing of what was written
            return False
        return True

    def _compare(self, arguments: Arguments, given: Given, states: Random, expected: Any) -> None:
        inputs, beside = arguments.taken(given)
        shapes = tuple(tuple(each.shape) for each in inputs)
        if self.sizes.complaint(shapes):
            return
        if beside:
            set_random_states(states)
            expected = _without(beside, arguments.call(inputs).on(self.spare), expected)
        set_random_states(states)
        try:
            with quiet():
                found = (arguments.call if self.called_like_model else arguments.written)(inputs).on(self.written)
        except Exception as error:
            raise ExportError(
                f"What was written does not run on inputs of the shapes {_listed(shapes)}, as the model does: "
                f"{said(error)}. Use another format."
            ) from error
        if self.wide is not None:
            set_random_states(states)
            expected = arguments.call([*map(wide, inputs)]).on(self.wide)
        fixed = None if self.same_draws else self._deterministic(arguments.call(inputs))
        self.worst = max(self.worst, distance(expected, found, fixed))
        self.compared |= {shapes}

    def _deterministic(self, call: Call) -> list[bool]:
        """Which outputs do not depend on what is drawn."""
        outputs = []
        for rng_seed in (1, 2):
            with seeded(rng_seed):
                outputs.append(_tensors(call.on(self.spare)))
        return [torch.equal(one, other) for one, other in zip(*outputs, strict=True)]


def wide(tensor: Tensor) -> Tensor:
    """A tensor in float32 if it is of a type that an exporter does not know."""
    return tensor.float() if tensor.dtype in WIDENED else tensor


def distance(expected: Any, found: Any, fixed: Sequence[bool] | None = None) -> float:
    """The largest difference of two outputs' tensors; where one of them is not fixed, their shapes alone count."""
    ours, theirs = _tensors(expected), _tensors(found)
    if len(ours) != len(theirs):
        raise ExportError(f"What was written gives {len(theirs)} tensors; the model gives {len(ours)}.")
    same = fixed or [True] * len(ours)
    pairs = zip(ours, theirs, same, strict=True)
    return max((_distance(one, other, exact) for one, other, exact in pairs), default=0.0)


def _distance(expected: Tensor, found: Tensor, exact: bool) -> float:
    if exact or expected.shape != found.shape:
        return tensor_distance(expected, found, least=1.0)
    return 0.0


def _tensors(outputs: Any) -> list[Tensor]:
    return tensors_of(without_foreign(outputs))


def _without(beside: Sequence[str], expected: Any, whole: Any) -> Any:
    """What the model gives without some inputs, which must be in what it gives with them: labels are such inputs."""
    all_of = _tensors(whole)
    if any(min((_distance(one, other, True) for other in all_of), default=1.0) > CLOSE for one in _tensors(expected)):
        raise ExportError(
            f"evaluate() gives the model {', '.join(beside)}, which the task's example() has not, and on which its "
            "outputs depend. Let example() have it, too."
        )
    return expected


def _others(inputs: Inputs, sizes: Sizes) -> Iterable[Inputs]:
    """The example in other batches, and in other sizes where they may vary."""
    free = [
        (place, dimension)
        for place, shape in enumerate(sizes.shapes)
        for dimension, size in enumerate(shape)
        if isinstance(size, str)
    ]
    batch = [place for place in free if place[1] == 0 and sizes.shapes[place[0]][0] == BATCH]
    if batch:
        yield resized(inputs, {place: 3 * inputs[place[0]].shape[0] for place in batch})
    changes: Iterable[Callable[[int], int]] = (lambda size: 2 * size, lambda size: size + 1, lambda size: size - 1)
    for change in changes:
        if len(free) > len(batch):
            wanted = {each: change(inputs[each[0]].shape[each[1]]) for each in free if each not in batch}
            if min(wanted.values()) > 0:
                yield resized(inputs, {**wanted, **{place: 2 * inputs[place[0]].shape[0] for place in batch}})


def _listed(shapes: Sequence[Sequence[int]]) -> str:
    return ", ".join(str(tuple(shape)) for shape in shapes)

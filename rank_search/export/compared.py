"""What was written is run beside the model, and must give the same outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rank_search.errors import ExportError
from rank_search.export.quiet import quiet, said
from rank_search.export.sizes import BATCH, Sizes
from rank_search.export.tracing import Place, parts_of, resized
from rank_search.layers import Example, copied, tensor_distance
from rank_search.tasks import Inputs, Random, Task, seeded, set_random_states, watched

CLOSE: Final = 1e-4
"""How far outputs may differ, relative to the largest: another runtime, or another layout, adds in another order."""
WIDENED: Final = (torch.bfloat16, torch.float64)
"""Types whose products onnxruntime does not have on a CPU."""


@final
@dataclass
class Beside:
    """A model, and what was written of it.

    Attributes:
        model: a separate copy, as a forward may change buffers.
        written: called like the model, its inputs by position.
        sizes: what it takes; inputs of other sizes are not compared.
        same_draws: whether it draws the random numbers that the model draws.
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
    ) -> Beside:
        """With copies of the model."""
        return cls(copied(model), written, sizes, same_draws, copied(model), wide)

    def check(self, example: Example, task: Task | None = None) -> None:
        """Compare on the example, on other batches and sizes that were exported, and on a task's selection data.

        Raises:
            ExportError: the outputs differ, or a dimension that was to be dynamic was seen at one size only.
        """
        inputs = parts_of(example)
        with torch.no_grad(), seeded(0), watched(self.model, self._compare):
            self.model(*inputs)
            if task is not None and self._open():
                task.evaluate(self.model, task.selection())
            for other in _others(inputs, self.sizes):
                if self._seen_once() and self._runs(other):
                    self.model(*other)
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

    def _runs(self, inputs: Inputs) -> bool:
        """Whether these sizes were exported, and the model itself takes them."""
        if self.sizes.complaint([each.shape for each in inputs]):
            return False
        try:
            self.spare(*inputs)
        except Exception:  # noqa: BLE001 - for any reason; it says nothing of what was written
            return False
        return True

    def _compare(self, inputs: Inputs, states: Random, expected: Any) -> None:
        shapes = tuple(tuple(each.shape) for each in inputs)
        _check_count(inputs, self.sizes)
        if self.sizes.complaint(shapes):
            return
        set_random_states(states)
        try:
            with quiet():
                found = self.written(*inputs)
        except Exception as error:
            raise ExportError(
                f"What was written does not run on inputs of the shapes {_listed(shapes)}, as the model does: "
                f"{said(error)}. Use another format."
            ) from error
        if self.wide is not None:
            set_random_states(states)
            expected = self.wide(*map(wide, inputs))
        fixed = None if self.same_draws else self._deterministic(inputs)
        self.worst = max(self.worst, distance(expected, found, fixed))
        self.compared |= {shapes}

    def _deterministic(self, inputs: Inputs) -> list[bool]:
        """Which outputs do not depend on what is drawn."""
        outputs = []
        for rng_seed in (1, 2):
            with seeded(rng_seed):
                outputs.append(_tensors(self.spare(*inputs)))
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
    return [each for each in pytree.tree_leaves(outputs) if isinstance(each, Tensor)]


def _check_count(inputs: Inputs, sizes: Sizes) -> None:
    if len(inputs) != len(sizes.shapes):
        raise ExportError(
            f"evaluate() calls the model with {len(inputs)} inputs, and the task's example() has {len(sizes.shapes)} "
            f"({', '.join(sizes.names)}). Let example() give the same number, in the order of forward's parameters."
        )


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

"""What of a batch is for the model: without targets, and called as the example is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from rank_search.basics import named_leaves
from rank_search.errors import TaskError
from rank_search.layers import Call, Example


def inputs_in(batch: Any, example: Example | None) -> Example:
    """The inputs in a batch: itself, or what it begins with, in the form of the example.

    A batch is what forward takes, or a sequence that begins with it (inputs and targets). Of a dictionary the names of
    the example are taken, so that labels are left out.

    Raises:
        TaskError: it is something else.

    >>> import torch
    >>> inputs_in({"ids": torch.ones(3, 2), "labels": torch.ones(3)}, {"ids": torch.ones(1, 2)})
    {'ids': tensor([[1., 1.],
            [1., 1.],
            [1., 1.]])}
    """
    if isinstance(example, Mapping):
        return _by_name(batch, example)
    several = len(example) if isinstance(example, tuple) else 0
    for inputs in _candidates(batch, several):
        if example is None or _alike(Call.of(inputs).positional, Call.of(example).positional):
            return inputs
    raise _no_input(batch, f"{several} of them" if several else f"a {_class(example)}")


def _by_name(batch: Any, example: Mapping[str, Any]) -> Example:
    found = batch[0] if isinstance(batch, tuple | list) and batch else batch
    wanted = [name for name, each in example.items() if any(isinstance(leaf, Tensor) for _, leaf in named_leaves(each))]
    if not isinstance(found, Mapping) or any(name not in found for name in wanted):
        raise _no_input(batch, f"a dictionary of {', '.join(wanted)}")
    return {name: found.get(name, each) for name, each in example.items()}


def _candidates(batch: Any, several: int) -> Iterator[Example]:
    """What the inputs may be, where they are given by position."""
    first = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not several:
        yield from (first, batch)
        return
    whole = first if isinstance(first, tuple | list) else batch
    for each in (whole, batch):
        if isinstance(each, tuple | list) and len(each) >= several:
            yield tuple(each[:several])
    yield from ((first,), (batch,))


def _alike(found: Any, example: Any) -> bool:
    """Whether one may stand for the other: tensors for tensors, containers for their like."""
    if isinstance(example, Tensor):
        return isinstance(found, Tensor)
    if isinstance(example, Mapping):
        return isinstance(found, Mapping) and all(
            name in found and _alike(found[name], each) for name, each in example.items()
        )
    if isinstance(example, tuple | list):
        same = isinstance(found, tuple | list) and len(found) == len(example)
        return same and all(map(_alike, found, example))
    return isinstance(found, type(example))


def _class(value: Any) -> str:
    return "tensor" if isinstance(value, Tensor) else type(value).__name__


def _no_input(batch: Any, wanted: str) -> TaskError:
    return TaskError(
        f"A batch is no input of the model: found {_kind(batch)}. A batch is {wanted}, as the example is, or a pair of "
        "that and the targets. Take the inputs out of the batches first."
    )


def _kind(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} of {', '.join(map(str, batch)) or 'nothing'}"
    if isinstance(batch, tuple | list):
        return f"a {type(batch).__name__} of {', '.join(type(each).__name__ for each in batch) or 'nothing'}"
    return f"a {type(batch).__name__}"

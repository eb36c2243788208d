"""What the form of a layer computes, as text: a function of Python on its tensors, which needs PyTorch alone."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import count
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils import _pytree as pytree

from rank_search.errors import ExportError
from rank_search.layers import Layer, TiedUse

SOURCE: Final = "source."
"""Before the names of tensors that are of the layer whose weight a tied one has."""

_SPELLED: Final = (bool, int, str, type(None), type(Ellipsis), torch.dtype, torch.memory_format, torch.layout)


@final
@dataclass(frozen=True)
class Recorded:
    """What a form computes of its input `x`.

    Attributes:
        takes: the names of the tensors that it is computed with.
        lines: the body of the function, whose further arguments are these tensors (see `_argument`).
    """

    takes: tuple[str, ...]
    lines: tuple[str, ...]

    def function(self, name: str, about: str) -> str:
        """Its text.

        >>> print(Recorded(("a.b",), ("return x + p0_a_b",)).function("f", "A sum."))
        def f(x, p0_a_b):
            'A sum.'
            return x + p0_a_b
        """
        arguments = ", ".join(["x", *(_argument(*each) for each in enumerate(self.takes))])
        return "\n    ".join([f"def {name}({arguments}):", repr(about), *self.lines])


def recorded(form: Any) -> Recorded:
    """What the form of a layer, or what stands for one of its ties, computes for inputs of any size.

    It is run on the meta device, in both modes and at several sizes of its inputs, and must do the same in all of them.

    Raises:
        ExportError: its forward cannot be written so; the reason alone, without the layer's name.
    """
    found = {_run(form, shape, training) for shape in _shapes(form.layer) for training in (False, True)}
    if len(found) > 1:
        raise ExportError("what its forward does depends on the sizes of its inputs, or on the mode")
    return found.pop()


def _shapes(layer: Layer) -> Iterator[tuple[int, ...]]:
    """Of inputs, as many channels in all; a kernel has no room in a single place."""
    seen = _shape(layer)
    channels = None if layer.one_hot else len(seen) + layer.channels
    changes: list[Callable[[int], int]] = [lambda size: size, lambda size: 2 * size + 1, lambda size: 8 * size]
    changes += [lambda size: 1] if layer.one_hot or layer.channels == -1 else []
    for change in changes:
        yield tuple(size if place == channels else change(size) for place, size in enumerate(seen))


def _shape(layer: Layer) -> tuple[int, ...]:
    """Of an input that it has seen, or may see."""
    if layer.inputs:
        return layer.inputs[0]
    if layer.one_hot or layer.channels == -1:
        return (2, 3) if layer.one_hot else (2, 3, layer.in_features)
    spans = (apart * (size - 1) + 1 for apart, size in zip(layer.dilation, layer.kernel, strict=True))
    return (2, layer.in_features, *spans)


def _run(form: Any, shape: Sequence[int], training: bool) -> Recorded:
    made = _on_meta(form).train(training)
    x = made.layer.inputs_like(torch.empty(shape, dtype=made.layer.dtype, device="meta"))
    recorder = _Recorder(_names(made), x)
    try:
        with torch.enable_grad(), recorder:
            outputs = made.forward(x)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"its forward does not run without numbers: {type(error).__name__}: {error}") from error
    return recorder.giving(outputs)


def _on_meta(form: Any) -> Any:
    """A copy without numbers, also of what it holds the tensors of."""
    modules = [form, form.source] if isinstance(form, TiedUse) else [form]
    tensors = [each for module in modules for each in (*module.parameters(), *module.buffers())]
    return copy.deepcopy(form, {id(each): _without_numbers(each) for each in tensors})


def _without_numbers(tensor: Tensor) -> Tensor:
    bare = tensor.detach().to("meta")
    return nn.Parameter(bare, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else bare


def _names(form: Any) -> dict[str, Tensor]:
    """Its tensors by name, as far as its state has them."""
    own: dict[str, Tensor] = form.state_dict(keep_vars=True)
    if not isinstance(form, TiedUse):
        return own
    return own | {f"{SOURCE}{name}": each for name, each in form.source.state_dict(keep_vars=True).items()}


@final
class _Recorder(TorchFunctionMode):
    """While it is entered, writes down what is done with some tensors."""

    def __init__(self, tensors: Mapping[str, Tensor], x: Tensor) -> None:
        super().__init__()
        self._names = {id(each): name for name, each in tensors.items()}
        self._own = {id(x): "x"}
        self._kept: list[object] = [tensors, x]  # so that no other object gets their ids
        self._lines: list[str] = []
        self._numbers = count(1)  # more than there are tensors, where a function gives back what it was given
        self._used: dict[str, str] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [self._text(each) for each in args]
        given += [f"{name}={self._text(each)}" for name, each in (kwargs or {}).items()]
        result = func(*args, **(kwargs or {}))
        if any(isinstance(each, Tensor) for each in pytree.tree_leaves(result)):
            self._lines.append(f"{self._named(result)} = {_name_of(func)}({', '.join(given)})")
        elif result is None:
            raise ExportError(f"its forward uses {_name_of(func)}, which gives nothing")
        return result

    def giving(self, outputs: Any) -> Recorded:
        """What was written down, up to these outputs."""
        if not isinstance(outputs, Tensor):
            raise ExportError(f"its forward gives a {type(outputs).__name__}, not a tensor")
        last = f"return {self._text(outputs)}"
        return Recorded(tuple(self._used), (*self._lines, last))

    def _named(self, result: Any) -> str:
        """A new name for each tensor of a result, in its structure."""
        self._kept.append(result)
        if isinstance(result, tuple | list):
            return f"({', '.join(map(self._named, result))},)"
        self._own[id(result)] = f"t{next(self._numbers)}"
        return self._own[id(result)]

    def _text(self, value: Any) -> str:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, slice):
            return f"slice({self._text(value.start)}, {self._text(value.stop)}, {self._text(value.step)})"
        if isinstance(value, tuple | list):
            inside = ", ".join(map(self._text, value))
            return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' if len(value) == 1 else ''})"
        if isinstance(value, float) and math.isfinite(value):
            return repr(float(value))
        if value == torch.device("meta"):  # here all tensors are there
            return "x.device"
        if isinstance(value, _SPELLED):
            return repr(value)
        raise ExportError(f"its forward uses {value!r}, which cannot be written down")

    def _tensor(self, value: Tensor) -> str:
        if id(value) in self._own:
            return self._own[id(value)]
        if id(value) not in self._names:
            raise ExportError("its forward uses a tensor that is neither a parameter nor a buffer in its state")
        name = self._names[id(value)]
        return self._used.setdefault(name, _argument(len(self._used), name))


def _argument(number: int, name: str) -> str:
    """Of the function, for the tensor of this name, which may be anything: a word of its own, and no code.

    >>> _argument(2, "left.0"), _argument(3, "x): #")
    ('p2_left_0', 'p3_x____')
    """
    return f"p{number}_{re.sub(r'[^a-zA-Z0-9]', '_', name)}"


def _name_of(func: Callable[..., Any]) -> str:
    """Under which name PyTorch has a function."""
    name = str(resolve_name(func))
    top, *rest = name.split(".")
    found: Any = None
    try:
        found = reduce(getattr, rest, torch) if top == "torch" and rest[:1] != ["ops"] else None
    except AttributeError:
        found = None
    if found != func:
        raise ExportError(f"its forward uses {name}, which is no public function of PyTorch")
    return name

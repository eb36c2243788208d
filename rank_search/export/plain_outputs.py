"""What a written model returns: tensors in tuples, lists and dictionaries alone, whatever class they came in."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from rank_search.basics import named_leaves
from rank_search.export.arguments import Arguments, signed
from rank_search.tasks import PLAIN


@contextmanager
def plain_forward(model: nn.Module, arguments: Arguments) -> Iterator[nn.Module]:
    """The model with a forward that takes the tensors of the arguments, and gives plain outputs."""
    if isinstance(model, fx.GraphModule) and not arguments.by_position:
        model = _without_graph(model)
    own, before = model.forward, vars(model).get("forward")
    changed: Callable[..., Any]
    if arguments.by_position:
        changed = functools.wraps(own)(lambda *args, **named: without_foreign(own(*args, **named)))
        changed.__signature__ = inspect.signature(own)  # type: ignore[attr-defined]
    else:

        def by_name(**named: Tensor) -> Any:
            return without_foreign(arguments.call([named[name] for name in arguments.names]).on(own))

        changed = signed(by_name, arguments.names)
    model.forward = changed
    try:
        yield model
    finally:
        del model.forward
        if before is not None:
            model.forward = before


def _without_graph(model: fx.GraphModule) -> nn.Module:
    """The same modules and tensors; torch.export reads a graph in the place of its forward."""
    made = nn.Module()
    for name, value in vars(model).items():
        if name not in ("_graph", "_code"):
            made.__dict__[name] = value
    made.forward = model.forward
    return made


def plain_program(program: ExportedProgram) -> ExportedProgram:
    """The program with outputs in tuples, lists and dictionaries alone: classes of others need not be loaded again."""
    signature = program.module_call_graph[0].signature
    if signature is None:
        return program
    numbers = list(range(signature.out_spec.num_leaves))
    leaves, spec = pytree.tree_flatten(plain(pytree.tree_unflatten(numbers, signature.out_spec)))
    if leaves == numbers:
        signature.out_spec = spec
    return program


def plain(value: Any) -> Any:
    """A value with tuples for named tuples, and dictionaries for their subclasses and for dataclasses."""
    if isinstance(value, tuple | list):
        kind = list if isinstance(value, list) else tuple
        return kind(plain(each) for each in value)
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    return value


def without_foreign(outputs: Any) -> Any:
    """Outputs as they are; plain and without them, if there are things in them that are no tensors, such as a cache."""
    if all(map(_is_held, pytree.tree_leaves(outputs))) and not foreign(outputs):
        return outputs
    return _kept(plain(outputs))


def foreign(outputs: Any) -> list[str]:
    """What no graph can hold in the outputs, each with its class."""
    return [f"{name} ({type(each).__name__})" for name, each in named_leaves(outputs) if name and not _is_held(each)]


def _kept(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _kept(each) for key, each in value.items() if _is_held(each)}
    if isinstance(value, tuple | list):
        return type(value)(_kept(each if _is_held(each) else None) for each in value)
    return value


def _is_held(value: Any) -> bool:
    return isinstance(value, (Tensor, *PLAIN, dict, tuple, list, torch.SymInt, torch.SymFloat, torch.SymBool))

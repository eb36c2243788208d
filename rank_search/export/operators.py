"""Which operators a model's graph may name: those that make tensors from tensors, and arithmetic on sizes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch._ops import OpOverload

from rank_search.errors import ExportError

_ARITHMETIC: Final[Mapping[str, Callable[..., Any]]] = {
    name: getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "mod", "neg", "getitem", "eq", "ne", "le", "lt", "ge", "gt")
}
_MAKERS: Final = frozenset(
    {"arange", "empty", "eye", "full", "linspace", "ones", "scalar_tensor", "tril_indices", "triu_indices", "zeros"}
)
# They trust their arguments where the others check them, or change what a tensor's memory is.
_TRUSTING: Final = ("_", "set_", "resize", "unsafe_", "fbgemm_", "mkldnn_", "cudnn_", "miopen_", "quantized_")
_TRUSTING_WORDS: Final = ("backward", "sparse")
_RETURNS: Final = frozenset({"Tensor", "List[Tensor]", "int", "SymInt", "float", "bool", "number"})


def name_of(target: Any) -> str:
    """The name under which an operator stands in a graph.

    Raises:
        ExportError: it is none that a graph may name.
    """
    if isinstance(target, OpOverload) and is_allowed(target):
        return f"{target._schema.name.replace('::', '.')}.{target._overloadname}"
    name: str = getattr(target, "__name__", str(target))
    if _ARITHMETIC.get(name) is target:
        return name
    raise ExportError(f"A model that uses {target} cannot be written as data; use --format pt2.")


def operator_named(name: str) -> Callable[..., Any]:
    """The operator of a name.

    Raises:
        ExportError: there is none of that name, or it is none that a graph may name.
    """
    if name in _ARITHMETIC:
        return _ARITHMETIC[name]
    namespace, _, rest = name.partition(".")
    operation, _, overload = rest.partition(".")
    if namespace == "aten":
        found = getattr(getattr(torch.ops.aten, operation, None), overload, None)
        if isinstance(found, OpOverload) and is_allowed(found):
            return found
    raise ExportError(f"A model's graph may name operators that make tensors from tensors; found {name!r}.")


def is_allowed(found: OpOverload) -> bool:
    """Whether an operator of `aten` gives values, and takes a tensor or makes a new one.

    That leaves out whatever opens files, prints, or changes settings. Of the internal operators only those are
    allowed that every backend of PyTorch has to have.
    """
    namespace, _, name = found._schema.name.partition("::")
    if namespace != "aten" or any(word in name for word in _TRUSTING_WORDS):
        return False
    if name.startswith(_TRUSTING) and not (name.startswith("_") and torch.Tag.core in found.tags):
        return False
    arguments, returns = found._schema.arguments, found._schema.returns
    gives_values = bool(returns) and all(str(each.type) in _RETURNS for each in returns)
    takes_tensor = any("Tensor" in str(each.type) for each in arguments)
    return gives_values and not any(each.is_out for each in arguments) and (takes_tensor or name in _MAKERS)


def gives_nothing(target: Any) -> bool:
    """Whether an operator only checks something: a graph does without it."""
    return isinstance(target, OpOverload) and not target._schema.returns and "assert" in target._schema.name

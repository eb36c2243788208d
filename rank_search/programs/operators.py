"""Which operators a model's graph may name: those that make tensors from tensors, and arithmetic on sizes."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch._ops import OpOverload

from rank_search.errors import ExportError

_SMALL: Final = 64


def power(base: float, exponent: float) -> float:
    """A power of two sizes; whole ones of large exponents would take all memory there is."""
    if isinstance(base, int) and isinstance(exponent, int) and abs(exponent) > _SMALL:
        raise ValueError(f"powers of sizes have exponents up to {_SMALL}; found {exponent}")
    found: float = base**exponent
    return found


_ARITHMETIC: Final[Mapping[str, Callable[..., Any]]] = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pos")},
    **{name: getattr(operator, name) for name in ("getitem", "eq", "ne", "le", "lt", "ge", "gt", "abs")},
    **{name: getattr(operator, name) for name in ("and_", "or_", "not_")},
    **{name: getattr(torch, name) for name in ("sym_float", "sym_int", "sym_max", "sym_min", "sym_not")},
    **{name: getattr(math, name) for name in ("ceil", "floor", "trunc")},
    "sym_sqrt": getattr(torch, "_sym_sqrt", math.sqrt),
    "pow": power,
}
_SAME: Final[Mapping[Any, str]] = {
    operator.pow: "pow",
    math.pow: "pow",
    **{each: name for name, each in _ARITHMETIC.items()},
}
_MAKERS: Final = frozenset(
    {"arange", "empty", "empty_permuted", "empty_strided", "eye", "full", "linspace", "logspace", "normal", "ones"}
    | {"rand", "randint", "randn", "randperm", "range", "scalar_tensor", "tril_indices", "triu_indices", "zeros"}
    | {"bartlett_window", "blackman_window", "hamming_window", "hann_window", "kaiser_window", "fft_fftfreq"}
    | {"fft_rfftfreq"}
)
# They trust their arguments where the others check them, or change what a tensor's memory is.
_TRUSTING: Final = ("_", "set_", "resize", "unsafe_", "fbgemm_", "mkldnn_", "cudnn_", "miopen_", "quantized_")
_TRUSTING_WORDS: Final = ("backward", "sparse")
# Of these prefixes, what functions of PyTorch's own end in, and checks what it is given.
_CHECKING: Final = frozenset(
    {"__and__", "__or__", "__xor__", "__lshift__", "__rshift__", "__iand__", "__ior__", "__ixor__"}
    | {"_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d"}
    | {"_upsample_nearest_exact3d", "_conj", "_neg_view", "_unsafe_view", "_shape_as_tensor", "_safe_softmax"}
    | {"_lu_with_info", "_unique", "_unique2", "_grouped_mm", "_weight_norm"}
    | {"unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes"}
)
_CHECK: Final = "_assert_scalar"
_RETURNS: Final = frozenset({"Tensor", "List[Tensor]", "int", "SymInt", "float", "bool", "number"})


def name_of(target: Any) -> str:
    """The name under which an operator stands in a graph.

    Raises:
        ExportError: it is none that a graph may name.
    """
    if isinstance(target, OpOverload) and is_allowed(target):
        return f"{target._schema.name.replace('::', '.')}.{target._overloadname}"
    if callable(target) and target in _SAME:
        return _SAME[target]
    raise ExportError(f"The model uses {target}, which cannot be written as data. Use --format pt2.")


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
    raise ExportError(f"The graph names {name!r}; only operators that make tensors from tensors are run.")


def is_allowed(found: OpOverload) -> bool:
    """Whether an operator of `aten` gives values, and takes a tensor or makes a new one.

    That leaves out all that opens files, prints, or changes settings. Of the internal operators only those are
    allowed that every backend of PyTorch has to have, or that its public functions end in and that check their
    arguments.
    """
    namespace, _, name = found._schema.name.partition("::")
    if namespace != "aten" or any(word in name for word in _TRUSTING_WORDS):
        return False
    if name == _CHECK:
        return True
    is_core = name.startswith("_") and torch.Tag.core in found.tags
    if name.startswith(_TRUSTING) and name not in _CHECKING and not is_core:
        return False
    arguments, returns = found._schema.arguments, found._schema.returns
    gives_values = bool(returns) and all(str(each.type) in _RETURNS for each in returns)
    takes_tensor = any("Tensor" in str(each.type) for each in arguments)
    return gives_values and not any(each.is_out for each in arguments) and (takes_tensor or name in _MAKERS)


def gives_nothing(target: Any) -> bool:
    """Whether an operator only says what is so anyway: a graph does without it, but not without checks of sizes."""
    if not isinstance(target, OpOverload) or target._schema.returns or target._schema.is_mutable:
        return False
    if target._schema.name == f"aten::{_CHECK}":
        return False
    return "assert" in target._schema.name or "constrain_range" in target._schema.name

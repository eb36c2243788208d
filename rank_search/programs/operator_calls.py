"""The calls of an exported program, out of its JSON.

No text of the file is evaluated: operators are looked up in a list of names, and sizes that vary are computed by the
calls of the graph, so that the expressions which PyTorch writes beside them are not needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch._ops import OpOverload

from rank_search.errors import ExportError
from rank_search.programs.numbers import DTYPES, LAYOUTS, MEMORY_FORMATS, numbered
from rank_search.programs.operators import gives_nothing, operator_named
from rank_search.programs.steps import Ref, Step

DEVICE: Final = "(the device of the inputs)"
"""The name of a value: where the network runs."""

_KEYWORD: Final = 2  # torch._export.serde.schema.ArgumentKind
_OF_GRAPHS: Final = "higher_order."
_PREFIXES: Final = ("torch.ops.", "_operator.", "math.", "torch.")


@final
@dataclass(frozen=True)
class OperatorCall:
    """A step of an exported program.

    Attributes:
        target: the operator's name, such as "aten.conv2d.default".
        scope: the dotted name of the module that it was called in; "" if the file does not say.
    """

    target: str
    step: Step
    scope: str

    @property
    def makes(self) -> str:
        """The name of the first of its values."""
        found = self.step.makes
        return found if isinstance(found, str) else str(found[0])

    def given(self) -> dict[str, Any]:
        """What it is called with, by the names and with the defaults of its operator."""
        operator = self.step.function
        assert isinstance(operator, OpOverload)
        arguments = operator._schema.arguments
        found = {each.name: each.default_value for each in arguments}
        found.update({each.name: value for each, value in zip(arguments, self.step.args, strict=False)})
        return found | dict(self.step.kwargs)


def calls_of(nodes: Sequence[Mapping[str, Any]]) -> list[OperatorCall]:
    """The calls, without those that only say what is so anyway.

    Raises:
        ExportError: an operator is none that a graph may name, or an argument is none that can be read.
    """
    found = []
    for node in nodes:
        target = _target(str(node["target"]))
        if _is_assertion(target):
            continue
        if target.startswith(_OF_GRAPHS):
            raise ExportError(
                f"The graph has a graph inside, for {target!r}. Save program.run_decompositions() in its place, which "
                "resolves torch.no_grad and autocast; control flow is not read."
            )
        function = operator_named(target)
        given = [(str(each["name"]), value_of(each["arg"]), each.get("kind")) for each in node["inputs"]]
        args = [value for _, value, kind in given if kind != _KEYWORD]
        kwargs = {name: value for name, value, kind in given if kind == _KEYWORD}
        outputs = [_makes(each) for each in node["outputs"]]
        makes = outputs[0] if len(outputs) == 1 else outputs
        found.append(OperatorCall(target, Step(makes, function, args, kwargs), _scope(node["metadata"])))
    return found


def _target(text: str) -> str:
    """An operator's name without the prefix that PyTorch writes."""
    for prefix in _PREFIXES:
        if text.startswith(prefix):
            return text.removeprefix(prefix)
    return text


def _is_assertion(target: str) -> bool:
    namespace, _, rest = target.partition(".")
    name, _, overload = rest.partition(".")
    if namespace != "aten" or ("assert" not in name and "constrain_range" not in name):
        return False
    return gives_nothing(getattr(getattr(torch.ops.aten, name, None), overload, None))


def _scope(metadata: Mapping[str, str]) -> str:
    """The module in the last entry of "key,name,class;key,name,class"."""
    entry = metadata.get("nn_module_stack", "").rpartition(";")[2].split(",")
    return entry[1].partition("@")[0] if len(entry) > 2 else ""


def _makes(output: Mapping[str, Any]) -> Any:
    """The name of a value, or a list of names."""
    match output:
        case {"as_tensor": {"name": str(name)}} | {"as_optional_tensor": {"as_tensor": {"name": str(name)}}}:
            return name
        case {"as_sym_int": {"as_name": str(name)}} | {"as_sym_bool": {"as_name": str(name)}}:
            return name
        case {"as_sym_float": {"as_name": str(name)}}:
            return name
        case {"as_tensors": [*each]}:
            return [str(one["name"]) for one in each]
    raise ExportError(f"A call gives {', '.join(map(repr, output))}, which cannot be read.")


def value_of(argument: Mapping[str, Any]) -> Any:
    """An argument: a number, a text, a value of PyTorch's own, a `Ref`, or a list of these.

    Raises:
        ExportError: it is something else, such as a graph or an object.

    >>> value_of({"as_sym_ints": [{"as_name": "s"}, {"as_int": 8}]})
    [Ref(name='s'), 8]
    """
    ((kind, content),) = argument.items()
    if kind == "as_none":
        return None
    if kind == "as_complex":
        return complex(_number(content["real"]), _number(content["imag"]))
    if kind == "as_device":
        return Ref(DEVICE)
    if kind in _TABLES:
        return numbered(content, _TABLES[kind])
    if kind in _PLAIN:
        return _plain(content)
    if kind in _NAMED:
        return _named(content)
    raise ExportError(f"A call takes {kind!r}, which cannot be read as data.")


_TABLES: Final[Mapping[str, Mapping[int, Any]]] = {
    "as_scalar_type": DTYPES,
    "as_layout": LAYOUTS,
    "as_memory_format": MEMORY_FORMATS,
}
_PLAIN: Final = frozenset(
    {"as_int", "as_ints", "as_float", "as_floats", "as_string", "as_strings", "as_bool", "as_bools"}
    | {"as_int_lists", "as_float_lists"}
)
_NAMED: Final = frozenset(
    {"as_tensor", "as_tensors", "as_optional_tensor", "as_optional_tensors", "as_nested_tensors", "as_sym_int"}
    | {"as_sym_ints", "as_sym_bool", "as_sym_bools", "as_sym_float", "as_sym_floats"}
)
_INFINITE: Final = ("Infinity", "-Infinity", "NaN")


def _number(value: Any) -> float:
    return float(value)


def _plain(content: Any) -> Any:
    if isinstance(content, list):
        return [_plain(each) for each in content]
    if content in _INFINITE:
        return float(content)
    if isinstance(content, bool | int | float | str):
        return content
    raise TypeError(f"a {type(content).__name__} is no number and no text")


def _named(content: Any) -> Any:
    """A value by its name, a number in the place of one, nothing, or a list of these."""
    match content:
        case list():
            return [_named(each) for each in content]
        case {"name": str(name)} | {"as_name": str(name)} | {"as_tensor": {"name": str(name)}}:
            return Ref(name)
        case {"as_none": _}:
            return None
        case {"as_int": bool() | int() as number} | {"as_float": int() | float() | str() as number}:
            return _plain(number)
        case {"as_bool": bool(truth)}:
            return truth
    raise TypeError(f"{content!r} is no value")

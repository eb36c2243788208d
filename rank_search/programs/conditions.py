"""What a trace took for granted about the sizes of its inputs, as data: arithmetic on sizes, and nothing else.

A condition is nested lists: a number; `["size", input, dimension]`; or an operator and what it is applied to.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

Condition = Any
"""Nested lists of text and whole numbers, as above: what JSON can hold."""

Shapes = Sequence[Sequence[int]]
"""The shape of each input."""

_WORDS: Final[Mapping[type[ast.AST], str]] = {
    **{ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%"},
    **{ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="},
    **{ast.And: "and", ast.Or: "or", ast.Not: "not", ast.USub: "negative"},
}
_OPERATORS: Final[Mapping[str, Callable[..., Any]]] = {
    **{"+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod},
    **{"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le},
    **{">": operator.gt, ">=": operator.ge, "not": operator.not_, "negative": operator.neg},
    **{"and": lambda *all_of: all(all_of), "or": lambda *any_of: any(any_of), "max": max, "min": min},
}


def condition_of(text: str, names: Sequence[str]) -> Condition:
    """The condition in a guard of torch.export such as `L['x'].size()[1] % 2 == 0`.

    Args:
        names: of the inputs, in their order.

    Raises:
        ValueError: it is about something else than sizes of inputs.

    >>> condition_of("L['x'].size()[1] <= 16", ["x"])
    ['<=', ['size', 0, 1], 16]
    """
    return _read(ast.parse(text.strip(), mode="eval").body, names)


def _read(node: ast.AST, names: Sequence[str]) -> Condition:
    match node:
        case ast.Constant(value=int(value)):
            return value
        case ast.Subscript(
            value=ast.Call(func=ast.Attribute(value=given, attr="size")),
            slice=ast.Constant(value=int(dimension)),
        ):
            return ["size", _place(given, names), dimension]
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return [_word(op), _read(left, names), _read(right, names)]
        case ast.BinOp(left=left, op=op, right=right):
            return [_word(op), _read(left, names), _read(right, names)]
        case ast.UnaryOp(op=op, operand=operand):
            return [_word(op), _read(operand, names)]
        case ast.BoolOp(op=op, values=values):
            return [_word(op), *(_read(each, names) for each in values)]
        case ast.Call(func=ast.Name(id="max" | "min" as word), args=args, keywords=[]):
            return [word, *(_read(each, names) for each in args)]
    raise ValueError(f"{ast.unparse(node)} is no arithmetic on sizes")


def _word(op: ast.AST) -> str:
    if type(op) not in _WORDS:
        raise ValueError(f"{type(op).__name__} is no arithmetic on sizes")
    return _WORDS[type(op)]


def _place(node: ast.AST, names: Sequence[str]) -> int:
    """The number of the input in `L['x']`, in `L['x'][0]` of several, which are called x_0 and so on, or in `x`."""
    name = _name(node)
    if name not in names:
        raise ValueError(f"{name} is no input, so that this is no arithmetic on sizes")
    return names.index(name)


def _name(node: ast.AST) -> str:
    match node:
        case ast.Subscript(value=ast.Name(), slice=ast.Constant(value=str(name))):
            return name
        case ast.Subscript(value=several, slice=ast.Constant(value=int(place))):
            return f"{_name(several)}_{place}"
    return ast.unparse(node)


def value_of(condition: Condition, shapes: Shapes) -> Any:
    """What a condition comes to for inputs of these shapes.

    Raises:
        LookupError, TypeError, ValueError, ArithmeticError: it is none, or the shapes have not what it asks for.

    >>> value_of(["<=", ["size", 0, 1], 16], [(3, 20)])
    False
    """
    if isinstance(condition, int):
        return condition
    word, *rest = condition
    if word == "size":
        return shapes[rest[0]][rest[1]]
    return _OPERATORS[word](*(value_of(each, shapes) for each in rest))


def shown(condition: Condition, names: Sequence[str]) -> str:
    """A condition to be read.

    >>> shown(["==", ["%", ["size", 0, 1], 2], 0], ["x"])
    'x.size(1) % 2 == 0'
    """
    if isinstance(condition, int):
        return str(condition)
    word, *rest = condition
    if word == "size":
        return f"{names[rest[0]]}.size({rest[1]})"
    if len(rest) == 1 or word in ("max", "min"):
        return f"{word}({', '.join(shown(each, names) for each in rest)})"
    compares = word in ("==", "!=", "<", "<=", ">", ">=")
    return f" {word} ".join(_nested(each, names, plain=compares) for each in rest)


def _nested(condition: Condition, names: Sequence[str], plain: bool) -> str:
    """A part of a condition, in brackets where it would be read otherwise; products beside a comparison need none."""
    text = shown(condition, names)
    is_plain = isinstance(condition, int) or condition[0] in ("size", "max", "min", "negative", "not")
    return text if is_plain or (plain and condition[0] in ("+", "-", "*", "//", "%")) else f"({text})"

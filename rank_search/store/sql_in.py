"""A column among many ids or names, given as one parameter: the text of the query stays the same however many.

So the query is put together and planned only once, and no limit on the number of parameters is met.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Dialect, Integer, Text, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NULLTYPE, TypeDecorator, TypeEngine


class Many(TypeDecorator[Iterable[Any]]):
    """Many values of one kind: an array for PostgreSQL, JSON for SQLite."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: TypeEngine[Any]) -> None:
        super().__init__()
        self.kind = kind

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return Text() if dialect.name == "sqlite" else ARRAY(self.kind)

    def process_bind_param(self, value: Iterable[Any] | None, dialect: Dialect) -> Any:
        values = list(value or ())
        return json.dumps(values) if dialect.name == "sqlite" else values


class _Among(FunctionElement[Any]):
    """Of a column and the parameter that holds its values.

    It has no type: that of a Boolean is compared with 1 in SQLite, which then uses no index.
    """

    type = NULLTYPE
    inherit_cache = True


@compiles(_Among, "sqlite")
def _in_json(element: _Among, compiler: SQLCompiler, **how: Any) -> str:
    column, values = (compiler.process(each, **how) for each in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({values}))"  # noqa: S608 - names and parameters of a query


@compiles(_Among)
def _in_array(element: _Among, compiler: SQLCompiler, **how: Any) -> str:
    column, values = (compiler.process(each, **how) for each in element.clauses)
    return f"{column} = ANY ({values})"


def in_values(column: ColumnElement[Any], parameter: str) -> ColumnElement[bool]:
    """Whether the column has one of the values of the parameter, an iterable."""
    kind = Integer() if isinstance(column.type, Integer) else Text()
    return _Among(column, bindparam(parameter, type_=Many(kind)))

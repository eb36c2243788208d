"""What is wrong with a study file, in its own words: key path, rule, what was found, the nearest key."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rank_search.basics import did_you_mean

_IN_TOML: Final = {
    "model_type": "this is a table",
    "dict_type": "this is a table",
    "tuple_type": "this is a list",
    "string_type": "this is a text",
    "float_type": "this is a number",
    "float_parsing": "this is a number",
    "int_type": "this is a whole number",
    "int_parsing": "this is a whole number",
    "int_from_float": "this is a whole number",
    "bool_type": "this is true or false",
    "bool_parsing": "this is true or false",
}
"""Types that pydantic names in the words of Python."""


def complaints(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line for each complaint, in the order of the file."""
    return [_line(details, model) for details in error.errors()]


def _line(details: ErrorDetails, model: type[BaseModel]) -> str:
    path = [part for part in details["loc"] if not _is_tag(part)]
    where = ".".join(str(part) for part in path)
    if details["type"] == "extra_forbidden":
        return f"{where}: there is no such key{_meant(path, model)}"
    if details["type"] == "missing":
        return f"{where}: this key is needed"
    message = _IN_TOML.get(details["type"], details["msg"].removeprefix("Value error, "))
    found = "" if details["type"] == "value_error" else f"; found {details['input']!r}"
    said = f"{message[0].lower()}{message[1:]}{found}"
    return f"{where}: {said}" if where else said  # without a place it is about several tables, which it names


def _is_tag(part: int | str) -> bool:
    """Pydantic names the branch of a union in the path; no key of a study file looks like that."""
    return isinstance(part, str) and not part.replace("_", "").replace("-", "").isalnum()


def _meant(path: list[int | str], model: type[BaseModel]) -> str:
    keys = _keys_at(path[:-1], model)
    return did_you_mean(str(path[-1]), keys) or (f"; there are: {', '.join(keys)}" if keys else "")


def _keys_at(path: list[int | str], model: type[BaseModel]) -> list[str]:
    """The keys that a table at this path may have."""
    tables: list[type[BaseModel]] = [model]
    for part in path:
        if isinstance(part, int):
            continue
        tables = [
            inner
            for table in tables
            if part in table.model_fields
            for inner in _models_in(table.model_fields[part].annotation)
        ]
    return [field.alias or key for table in tables for key, field in table.model_fields.items() if not field.exclude]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, tuple, list):
        for argument in get_args(annotation):
            yield from _models_in(argument)

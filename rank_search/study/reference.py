"""docs/study-file.md, written from the settings themselves; `make docs` writes it anew."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rank_search.point import Bound, Objective
from rank_search.search import Strength
from rank_search.study.file import Study

_INTRODUCTION = """# The study file

A study file is TOML. It is data: nothing in it is executed, except that `task.factory` names the Python function that
makes your task. Only `[study] name` and `[task] factory` are required.

```toml
[study]
name = "digits"
trials = 40

[task]
factory = "digits.py:task"              # your model, data and metric

[layers]
exclude = ["conv1.*", "output"]
factorizations = ["tucker2", "svd"]     # dense is always a choice, too

[search]
sampler = "auto"                        # the default; or tpe, nsga2, nsga3, gp, random, bolaco, continuous
objectives = ["error", "macs", "bits"]
constraints = ["macs <= 0.5 * dense"]   # checked before training
orthogonality = { low = 1e-3, high = 1.0 }
entropy = { low = 1e-2, high = 1.0 }

[priors]
rule = "vbmf"                           # the default; or tail, energy
calibration = 2                         # batches of training data that the fits look at; 0 = the weights alone

[training]
epochs = 18
learning_rate = 8e-3
```

`rank-search space STUDY.toml` shows what a file means before anything is trained. All mistakes in a file are reported
at once, each with its key.

A study in a store resumes only with what it was made from. `[launch]`, `[priors] memory` and the keys `trials`,
`test`, `test_share`, `store` and `cache` of `[study]` may change from run to run; `artifacts` may be left out later. A
change of any other key, of the weights, of the task's code or of a plugin's version is refused, with what differs; `run
--accept-changes` accepts changed code and plugins.
"""

_KINDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def reference() -> str:
    """The whole page."""
    return _INTRODUCTION + "".join(
        _table([name], field) for name, field in Study.model_fields.items() if not field.exclude
    )


def _table(path: list[str], field: FieldInfo) -> str:
    model = _model(field.annotation)
    if model is None:
        return ""
    inner = model.model_fields
    lines = [f"\n## `[{'.'.join(path)}]`{_repeats(field.annotation)}\n", _prose(model), ""]
    lines += ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    lines += [_row(each.alias or name, each) for name, each in inner.items()]
    below = (_table([*path, name], each) for name, each in inner.items())
    return "\n".join(lines) + "\n" + "".join(below)


def _prose(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "")


def _repeats(annotation: Any) -> str:
    return " (each entry of the list)" if get_origin(annotation) is tuple else ""


def _row(name: str, field: FieldInfo) -> str:
    default = "needed" if field.is_required() else f"`{_toml(field.get_default(call_default_factory=True))}`"
    kind = " or ".join(dict.fromkeys(_kinds(field.annotation)))
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{name}` | {kind} | {default} | {meaning} |"


def _kinds(annotation: Any) -> Iterator[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _kinds(arguments[0])
    elif origin is Literal:
        yield " or ".join(f"`{_toml(each)}`" for each in arguments)
    elif origin in (Union, types.UnionType):
        for each in arguments:
            if each is not type(None):
                yield from _kinds(each)
    elif origin is tuple:
        yield "list of " + " or ".join(
            dict.fromkeys(kind for each in arguments if each is not ... for kind in _kinds(each))
        )
    elif origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        yield "table"
    else:
        yield _named(annotation)


def _named(annotation: Any) -> str:
    ours = {Strength: "`off`, number or table", Objective: "text or table", Bound: "text"}
    return {**_KINDS, **ours}.get(annotation, "any value")


def _model(annotation: Any) -> type[BaseModel] | None:
    """The settings of a table, or of each entry of a list of tables."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model(each) for each in get_args(annotation))
    return next((each for each in found if each is not None), None)


def _toml(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "{…}" if value.model_fields_set else "{}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Bound | Strength):
        return f'"{value}"'
    if isinstance(value, Objective):
        return f'"{value.name}"'
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.stdout.write(reference())

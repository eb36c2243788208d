"""The small module of Python by which transformers opens a model with layers of low rank, and its configuration."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from torch import nn

from rank_search.export import modeling_low_rank
from rank_search.export.replacements import Replacements

MODELING: Final = "modeling_low_rank"

_CONFIG: Final = "config.json"
_PREFIX: Final = "LowRank"

_CLASSES: Final = '''

from transformers import {config}, {model}  # noqa: E402


class {prefix}{config}({config}):
    """With what stands for layers, by their names: `low_rank` (ranks), `low_rank_ties` (whose factors a layer uses),
    `low_rank_parts` (into what it is cut), and `low_rank_forms` (which function of what tensors any other is)."""

    model_type = "{type}"


class {prefix}{model}({model}):
    """The model with these layers of low rank."""

    config_class = {prefix}{config}

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        put_low_rank(self)

    def get_expanded_tied_weights_keys(self, all_submodels=False):
        """Which parameters are tied, by their names: no weights of layers of low rank."""
        known = getattr(self, "still_tied", None)  # not before they are in place
        return super().get_expanded_tied_weights_keys(all_submodels) if known is None else dict(known[all_submodels])
'''


def write_module(folder: Path, model: Any, made: Replacements) -> None:
    """Write the module beside a model that transformers has saved, and name its classes in the configuration."""
    names = {"model": type(model).__name__, "config": type(model.config).__name__}
    source, classes = inspect.getsource(modeling_low_rank), _CLASSES.format(**names, type=_type(model), prefix=_PREFIX)
    text = "\n\n".join([source, *(f"{each}\n" for each in made.functions.values())]) + classes
    (folder / f"{MODELING}.py").write_text(text, encoding="utf-8")
    path, own = folder / _CONFIG, f"{MODELING}.{_PREFIX}"
    values = json.loads(path.read_text(encoding="utf-8")) | {
        "architectures": [f"{_PREFIX}{names['model']}"],
        "auto_map": {
            "AutoConfig": f"{own}{names['config']}",
            **dict.fromkeys(_auto_classes(names["model"]), f"{own}{names['model']}"),
        },
        **made.to_config(),
        "model_type": _type(model),
    }
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def opened(folder: Path, name: str) -> nn.Module:
    """The model in a folder, made of a class of that name, in evaluation mode.

    The module is run where it is; by `AutoModel…` transformers would run a copy, and leave it in its cache.
    """
    own = f"{MODELING}_{secrets.token_hex(4)}"
    spec = importlib.util.spec_from_file_location(own, folder / f"{MODELING}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[own] = module  # where transformers looks for the module of a class
    try:
        spec.loader.exec_module(module)
        found: nn.Module = getattr(module, f"{_PREFIX}{name}").from_pretrained(folder, dtype="auto")
    finally:
        del sys.modules[own]
    return found.eval()


def _type(model: Any) -> str:
    """Not the model's own type, by which the folder would open without the module, with random numbers as weights.

    It is written into the module, so it is that of the class: a configuration may come with another, which may be code.
    """
    return f"low_rank_{type(model.config).model_type}"


def _auto_classes(name: str) -> list[str]:
    """By which of its classes transformers opens models of this one."""
    classes = vars(importlib.import_module("transformers.models.auto.modeling_auto"))
    tables = {auto: getattr(each, "_model_mapping", None) for auto, each in classes.items() if auto.startswith("Auto")}
    known = {auto: table._model_mapping for auto, table in tables.items() if table is not None}
    return [auto for auto, table in known.items() if name in _flat(table.values())] or ["AutoModel"]


def _flat(values: Iterable[Any]) -> Iterator[str]:
    for each in values:
        yield from [each] if isinstance(each, str) else each

"""Finding factorizations: by entry point, or in one file while they are being written."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from contextlib import AbstractContextManager
from functools import lru_cache
from importlib.metadata import EntryPoint, version
from pathlib import Path
from types import ModuleType
from typing import Final

from rank_search.basics import attributing, nearest
from rank_search.errors import BrokenPluginError, ContractError, UnknownPluginError
from rank_search.layers.entries import entries_of, loaded
from rank_search.layers.factorization import Factorization
from rank_search.layers.layer import Layer
from rank_search.point import DENSE

GROUP: Final = "rank_search.factorizations"


def installed() -> dict[str, EntryPoint]:
    """Every registered factorization by name, not yet loaded; sorted by name."""
    return entries_of(GROUP)


@lru_cache(maxsize=256)
def load_plugin(name: str) -> type[Factorization]:
    """The factorization class of that name, or of `path.py:Class`.

    Raises:
        UnknownPluginError: nothing of that name is installed.
        BrokenPluginError: it is there but raises on import.
        ContractError: what was loaded is not a concrete `Factorization`.
    """
    found = _from_file(name) if ".py:" in name else _from_entry_point(name)
    if not (inspect.isclass(found) and issubclass(found, Factorization)):
        raise ContractError(
            f"{name!r} loads {found!r}; a factorization is a subclass of rank_search.layers.Factorization. "
            "See docs/writing-a-plugin.md."
        )
    if missing := sorted(found.__abstractmethods__):
        raise ContractError(
            f"{name!r} lacks {', '.join(missing)}; a factorization defines axes, fit and dense. "
            "See docs/writing-a-plugin.md."
        )
    return found


def plugin_errors(plugin: type[Factorization], what: str, layer: Layer) -> AbstractContextManager[None]:
    """What a factorization raises inside becomes a `ContractError` that names the method and the layer."""
    return attributing(
        ContractError,
        f"{plugin.__name__}.{what} for {layer.name or layer}",
        "A factorization must work for every layer that it applies to; `rank-search plugins check` shows more.",
    )


def name_of(plugin: type[Factorization]) -> str:
    """The name under which a factorization is installed; of one that is not, its class's.

    >>> name_of(load_plugin("svd"))
    'svd'
    """
    names = {entry.value: name for name, entry in installed().items()}
    return names.get(f"{plugin.__module__}:{plugin.__qualname__}", plugin.__qualname__)


def resolved(plugin: str, folder: Path) -> str:
    """A plugin in a file is named relative to the study file."""
    file, separator, name = plugin.rpartition(".py:")
    return f"{folder / (file + '.py')}:{name}" if separator else plugin


def plugin_version(plugin: str, folder: Path) -> str:
    """The version of a plugin's package; of a plugin in a file, what the file holds."""
    file, in_file, _ = resolved(plugin, folder).rpartition(":")
    if in_file:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    entry = installed().get(plugin)
    return entry.dist.version if entry is not None and entry.dist is not None else version("rank-search")


def plugin_code(name: str, plugin: type[Factorization], folder: Path) -> str:
    """What a plugin's fits come from: its version and the file that it is written in, and the version of this package.

    A change in what that file imports goes unseen as long as no version changes.
    """
    try:
        source = Path(inspect.getfile(plugin)).read_bytes()
    except (OSError, TypeError):  # no file, such as a class of an interactive session
        source = b""
    code = hashlib.sha256(source).hexdigest()
    return f"{name} {plugin.__qualname__} {plugin_version(name, folder)} {code} {version('rank-search')}"


def _from_entry_point(name: str) -> object:
    known = installed()
    if name not in known:
        raise UnknownPluginError(
            f"No factorization {name!r} is installed{nearest(name, [*known, DENSE])} "
            "A plugin in a file is named path.py:Class."
        )
    return loaded(known[name], "The factorization")


def _from_file(name: str) -> object:
    file, _, attribute = name.rpartition(":")
    path = Path(file).resolve()
    if not path.is_file():
        raise UnknownPluginError(f"There is no file {path}. A plugin in a file is named path.py:Class.")
    found = vars(_module_of(path))
    if attribute not in found:
        raise UnknownPluginError(f"{path} has no class {attribute!r}. A plugin in a file is named path.py:Class.")
    return found[attribute]


def _module_of(path: Path) -> ModuleType:
    """What a file holds, imported once.

    The module's name says which file it is, and what was in it: another may have its stem, and this one may change.
    """
    key = hashlib.sha256(f"{path}\n".encode() + path.read_bytes()).hexdigest()[:16]
    name = f"rank_search_plugin_{path.stem}_{key}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BrokenPluginError(f"{path} is no Python file. A plugin in a file is named path.py:Class.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that its classes can be pickled
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise BrokenPluginError(
            f"{path} does not import: {type(error).__name__}: {error}. Fix it and try again."
        ) from error
    return module

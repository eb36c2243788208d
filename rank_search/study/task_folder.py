"""The folder of a task's file, in which Python looks for what that file imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})

_known: Final[set[Path]] = set()
"""The folders of all tasks that this process has made."""


@contextmanager
def searched_first(folder: Path) -> Iterator[None]:
    """Inside, imports look in the folder first, as in a script's own; afterwards they look there last.

    What rank-search and PyTorch import later is so never a file that happens to lie in the folder. Modules that another
    task's folder has supplied under a name that there is in this folder, too, are forgotten: they are imported anew.
    """
    _forget_namesakes(folder)
    _known.add(folder)
    place = str(folder)
    sys.path.insert(0, place)
    try:
        yield
    finally:
        if place in sys.path:
            sys.path.remove(place)  # the first one: it may have been among them before
        if place not in sys.path:
            sys.path.append(place)


def _forget_namesakes(folder: Path) -> None:
    others = _known - {folder}
    for name, module in list(sys.modules.items()) if others else ():
        if home_of(module) in others and _has(folder, name):
            for each in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
                del sys.modules[each]


def _has(folder: Path, name: str) -> bool:
    return name != "__main__" and ((folder / f"{name}.py").is_file() or (folder / name).is_dir())


def home_of(module: ModuleType) -> Path | None:
    """The folder in which a top-level module or package was found; None of what is inside a package, or built in."""
    own = vars(module) if isinstance(module, ModuleType) else {}
    if own.get("__file__"):
        place = Path(own["__file__"])
        place = place.parent if place.name == "__init__.py" else place
    else:
        place = next(map(Path, own.get("__path__", ())), Path())
    return place.resolve().parent if place.parts and "." not in own["__name__"] else None


def is_of_a_task(module: ModuleType) -> bool:
    """Whether a top-level module was found in the folder of a task that this process has made."""
    return home_of(module) in _known


def is_installed(module: ModuleType) -> bool:
    """Whether a top-level module is Python's own or of an installed package."""
    home = home_of(module)
    return home is None or module.__name__ in sys.stdlib_module_names or bool(_INSTALLED & set(home.parts))

"""A package that is also the function it is named after: `rank_search.options(model, …)`.

Importing a package puts it into its parent under its own name, in place of any function of that name. So the package
itself is made callable, in the way that Python's reference gives for modules that behave otherwise than modules do
("Customizing module attribute access": a module's `__class__` may be set to a subclass of `types.ModuleType`).
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, Final, final

_CALLED: Final = "_called"


@final
class CallableRoom(ModuleType):
    """A package that passes calls on to a function in one of its modules, which is imported at the first call."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.__wrapped__(*args, **kwargs)

    @property
    def __wrapped__(self) -> Any:
        """The function itself: `inspect.signature` and IPython's `?` show its signature."""
        module, name = vars(self)[_CALLED]
        return getattr(importlib.import_module(f"{self.__name__}.{module}"), name)


def make_callable(room: str, module: str, function: str) -> None:
    """Make a package callable.

    Args:
        room: its dotted name.
        module: the one of its modules that has the function.
        function: its name in there.
    """
    package = sys.modules[room]
    setattr(package, _CALLED, (module, function))
    package.__class__ = CallableRoom

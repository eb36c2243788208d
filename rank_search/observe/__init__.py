"""How a search is looked at from outside: logs, progress, status, and a copy for Optuna's dashboard."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rank_search.observe.optuna_storage import following
    from rank_search.observe.search_progress import Progress, Report, going_on
    from rank_search.observe.status import SILENT, Driver, Status, look

_HOMES: Final = {
    "Driver": "status",
    "Progress": "search_progress",
    "Report": "search_progress",
    "SILENT": "status",
    "Status": "status",
    "following": "optuna_storage",
    "going_on": "search_progress",
    "look": "status",
}

__all__ = [
    "SILENT",
    "Driver",
    "Progress",
    "Report",
    "Status",
    "following",
    "going_on",
    "look",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

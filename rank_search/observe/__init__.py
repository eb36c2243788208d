"""How a search is looked at from outside: logs, progress, status, and a copy for Optuna's dashboard."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rank_search.observe.optuna_storage import following
    from rank_search.observe.search_progress import Report, SearchProgress, going_on
    from rank_search.observe.status import SILENT, DriverStatus, Status, status_of

_HOMES: Final = {
    "DriverStatus": "status",
    "SearchProgress": "search_progress",
    "Report": "search_progress",
    "SILENT": "status",
    "Status": "status",
    "following": "optuna_storage",
    "going_on": "search_progress",
    "status_of": "status",
}

__all__ = [
    "SILENT",
    "DriverStatus",
    "Report",
    "SearchProgress",
    "Status",
    "following",
    "going_on",
    "status_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

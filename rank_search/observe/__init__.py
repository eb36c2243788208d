"""How a search is looked at from outside: logs, progress, callbacks, status, and a copy for Optuna's dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rank_search.basics import lazy_door

if TYPE_CHECKING:
    from rank_search.observe.callbacks import Observers, TrialCallback
    from rank_search.observe.optuna_storage import following
    from rank_search.observe.ray_metrics import RayMetrics
    from rank_search.observe.search_progress import Report, SearchProgress, UnbrokenReport
    from rank_search.observe.status import SILENT, DriverStatus, Status, status_of
    from rank_search.observe.tensorboard import TensorBoard

_HOMES: Final = {
    "DriverStatus": "status",
    "Observers": "callbacks",
    "RayMetrics": "ray_metrics",
    "Report": "search_progress",
    "SILENT": "status",
    "SearchProgress": "search_progress",
    "Status": "status",
    "TensorBoard": "tensorboard",
    "TrialCallback": "callbacks",
    "UnbrokenReport": "search_progress",
    "following": "optuna_storage",
    "status_of": "status",
}

__all__ = [
    "SILENT",
    "DriverStatus",
    "Observers",
    "RayMetrics",
    "Report",
    "SearchProgress",
    "Status",
    "TensorBoard",
    "TrialCallback",
    "UnbrokenReport",
    "following",
    "status_of",
]

__getattr__ = lazy_door(__name__, _HOMES)

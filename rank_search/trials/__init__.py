"""One trial: factorize, fine-tune, code, decode, measure."""

from __future__ import annotations

from rank_search.trials.context import TrialContext, build
from rank_search.trials.form_latency import form_ratio
from rank_search.trials.latency import LATENCY, LATENCY_RATIO, threads
from rank_search.trials.measure import measure, on_test, test_measurements
from rank_search.trials.settings import LatencySettings
from rank_search.trials.trial import dense_measurements, run_trial

__all__ = [
    "LATENCY",
    "LATENCY_RATIO",
    "LatencySettings",
    "TrialContext",
    "build",
    "dense_measurements",
    "form_ratio",
    "measure",
    "on_test",
    "run_trial",
    "test_measurements",
    "threads",
]

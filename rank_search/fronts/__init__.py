"""What was found: studies, claims, trials and their Pareto fronts, in one SQL store.

    with Store.open("runs/digits.sqlite") as store:
        study = store.study("digits")
        for member in store.front(study, where=[Bound.parse("error <= 0.03")], sort="macs"):
            print(member.number, member.measurements)

Knows no torch and no optuna, and imports neither numpy nor Alembic until they are needed.
"""

from __future__ import annotations

from rank_search.fronts.artifacts import artifact_folder
from rank_search.fronts.dominance import dominates, hypervolume, nondominated
from rank_search.fronts.front import Front
from rank_search.fronts.records import Activity, Claim, PriorRow, StudyRecord, StudySummary, TrialRow
from rank_search.fronts.store import Store

__all__ = [
    "Activity",
    "Claim",
    "Front",
    "PriorRow",
    "Store",
    "StudyRecord",
    "StudySummary",
    "TrialRow",
    "artifact_folder",
    "dominates",
    "hypervolume",
    "nondominated",
]

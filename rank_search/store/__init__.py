"""What was found: studies, claims, trials and their Pareto fronts, in one SQL store.

    with Store.open("runs/digits.sqlite") as store:
        study = store.study("digits")
        for member in store.front(study, where=[Bound.parse("error <= 0.03")], sort="macs"):
            print(member.number, member.measurements)

Knows no torch and no optuna, and imports neither numpy nor Alembic until they are needed. Names are loaded when they
are first used, so that a command that opens no store does not import SQLAlchemy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rank_search.basics import lazy_door

if TYPE_CHECKING:
    from rank_search.store.address import locate, location_of
    from rank_search.store.changes import CODE
    from rank_search.store.choosing import parse_wish
    from rank_search.store.front import Front
    from rank_search.store.front_shares import box_of, convergence_of, hypervolume_of, panels_of, takes_part
    from rank_search.store.precision import half_width
    from rank_search.store.records import (
        EXAMPLES,
        LAYER_COSTS,
        MEANINGS,
        NEVER,
        SIGNAL,
        TOLERANCE,
        Activity,
        Claim,
        PriorRow,
        StudyRecord,
        StudySummary,
        TrialRow,
    )
    from rank_search.store.sql_store import Store
    from rank_search.store.study_folder import artifact_folder

_HOMES: Final = {
    "CODE": "changes",
    "EXAMPLES": "records",
    "MEANINGS": "records",
    "LAYER_COSTS": "records",
    "SIGNAL": "records",
    "NEVER": "records",
    "TOLERANCE": "records",
    "Activity": "records",
    "Claim": "records",
    "Front": "front",
    "PriorRow": "records",
    "Store": "sql_store",
    "StudyRecord": "records",
    "StudySummary": "records",
    "TrialRow": "records",
    "artifact_folder": "study_folder",
    "box_of": "front_shares",
    "convergence_of": "front_shares",
    "half_width": "precision",
    "hypervolume_of": "front_shares",
    "locate": "address",
    "location_of": "address",
    "panels_of": "front_shares",
    "parse_wish": "choosing",
    "takes_part": "front_shares",
}

__all__ = [
    "CODE",
    "EXAMPLES",
    "LAYER_COSTS",
    "MEANINGS",
    "NEVER",
    "SIGNAL",
    "TOLERANCE",
    "Activity",
    "Claim",
    "Front",
    "PriorRow",
    "Store",
    "StudyRecord",
    "StudySummary",
    "TrialRow",
    "artifact_folder",
    "box_of",
    "convergence_of",
    "half_width",
    "hypervolume_of",
    "locate",
    "location_of",
    "panels_of",
    "parse_wish",
    "takes_part",
]

__getattr__ = lazy_door(__name__, _HOMES)

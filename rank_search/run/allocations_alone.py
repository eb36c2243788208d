"""What a search added to the allocations that it began with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rank_search.store import TOLERANCE, Front, StudyRecord, TrialRow, box_of, hypervolume_of, takes_part

_ENOUGH: Final = 0.99
"""Of the front's hypervolume: what is left is about what another rng seed changes (docs/benchmarks/search.md)."""


def allocations_alone(record: StudyRecord, seeds: Sequence[TrialRow], front: Front) -> str:
    """Which share of the front's hypervolume, near the dense model, its allocations have without the search, in words.

    Empty where there are fewer than two allocations, or nothing else that could have added to them.

    Args:
        seeds: the trials of the seed points.
    """
    if not (record.ideal.keys() & record.reference_point.keys()).issuperset(record.objective_names):
        return ""
    labels = {row.number: str(row.sampler.get("label", "")) for row in seeds if takes_part(record, row)}
    allocated = [row for row in seeds if labels.get(row.number, "").startswith("allocation")]
    given = [row for row in seeds if labels.get(row.number) == "dense"] + allocated
    added = {row.number for row in front} - {row.number for row in given}
    box = box_of(record, TOLERANCE)
    whole = hypervolume_of(record, front, box)
    if len(allocated) < 2 or not added or whole == 0:
        return ""
    share = hypervolume_of(record, given, box) / whole
    said = (
        f"The {len(allocated)} allocations that the search began with have {share:.1%} of the front's hypervolume near "
        "the dense model."
    )
    return said if share < _ENOUGH else f"{said} {len(given)} trials would have been enough."

"""Small makers of studies and trials, and the slow obvious oracle of a front."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rank_search.point import Artifact, Choice, Execution, Objective, Outcome, Point, State
from rank_search.store import Claim, Store, StudyRecord, TrialRow

BEGIN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
END = datetime(2026, 1, 2, 3, 5, 0, tzinfo=UTC)

_ranks = itertools.count(1_000_000)  # far from the ranks that tests name


def a_record(*directions: str, **changes: Any) -> StudyRecord:
    """A study nobody has, with objectives `a`, `b`, … of the given directions."""
    objectives = [Objective(chr(ord("a") + place), way) for place, way in enumerate(directions or ("minimize",) * 2)]
    fields: dict[str, Any] = {
        "name": f"study {uuid.uuid4()}",
        "fingerprint": {"weights": "00aa", "study file": "11bb"},
        "space": {"coordinates": [1, 2.5, "x"]},
        "objectives": tuple(objectives),
        "reference_point": {each.name: 10.0 for each in objectives},
        "ideal": {each.name: -10.0 for each in objectives},
        "dense": {"a": 4.0, "b": 8.0, "size": 100.0},
        "budget": 2.0,
    }
    return StudyRecord(**{**fields, **changes})


def a_point(rank: int | None = None) -> Point:
    """A point nobody has tried, or the one of that rank."""
    rank = next(_ranks) if rank is None else rank
    layers = {"conv": Choice("tucker2", {"rank_out": rank, "rank_in": 3}), "fc": Choice()}
    return Point(layers, {"orthogonality": 0.5})


def complete(**measured: float) -> Outcome:
    return Outcome(State.COMPLETE, measured)


def stopped(**measured: float) -> Outcome:
    return Outcome(State.STOPPED, measured)


def finish(
    store: Store, study: StudyRecord, outcome: Outcome, *, point: Point | None = None, budget: float = 2.0
) -> TrialRow:
    """Claim a point and record what came of it."""
    claim = store.claim(study, point or a_point(), "worker", {"label": "x"}, budget=budget)
    assert claim is not None
    return record(store, study, claim, outcome)


def go_on(store: Store, study: StudyRecord, number: int, outcome: Outcome, *, budget: float = 2.0) -> TrialRow:
    """Promote a stopped trial and record what came of it."""
    claim = store.promote(study, number, "promoter", budget)
    assert claim is not None
    return record(store, study, claim, outcome)


def record(store: Store, study: StudyRecord, claim: Claim, outcome: Outcome) -> TrialRow:
    """Record what came of a claim, at its budget."""
    store.record(study, claim, outcome, Execution(7, BEGIN, END))
    return store.trial(study, claim.number)


def fill(store: Store, study: StudyRecord, table: Sequence[Sequence[float]]) -> list[TrialRow]:
    """One complete trial for each row of measurements of the objectives."""
    names = study.objective_names
    return [finish(store, study, complete(**dict(zip(names, row, strict=True)))) for row in table]


def anybody_else(worker: str) -> Callable[[Claim], bool]:
    """Takes every claim for that of a dead worker, but for those of this one."""
    return lambda claim: claim.worker != worker


def beats(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(mine <= yours for mine, yours in pairs) and any(mine < yours for mine, yours in pairs)


def slow_front(losses: Sequence[Sequence[float]]) -> list[int]:
    """The rows that no other row beats, one by one."""
    return [place for place, mine in enumerate(losses) if not any(beats(other, mine) for other in losses)]


def numbers(rows: Sequence[TrialRow]) -> list[int]:
    return [row.number for row in rows]


def weights_file(content: bytes, sha256: str, location: str = "0/weights.safetensors") -> Artifact:
    return Artifact("weights", location, sha256, len(content))


def as_rows(measured: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(measured.items())

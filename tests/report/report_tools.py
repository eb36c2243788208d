"""Studies to report on: in a store, or so many trials that they stand in for one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from rank_search.pareto import nondominated
from rank_search.point import Choice, Execution, Objective, Outcome, Point, State
from rank_search.store import PriorRow, Store, StudyRecord, TrialRow
from tests.store.store_tools import BEGIN, a_record

LAYERS = ("features.0.conv", "features.1.conv", "head")
HOSTILE = "<script>window.broken=1</script>\"'&éß漢</script><!--"


def study_record(
    names: Sequence[str] = ("error", "macs"), layers: Sequence[str] = LAYERS, **changes: Any
) -> StudyRecord:
    """A study whose layers can become `svd` (rank up to 32) or `tucker2`."""
    dense = {"error": 0.01, "macs": 1e8, "bits": 3.2e7, "params": 1e6}
    priors = tuple(
        PriorRow(layer, factorization, axis, 8, 32, 0.01, 0.8, 15.0)
        for layer in layers
        for factorization, axis in (("svd", "rank"), ("tucker2", "rank_out"), ("tucker2", "rank_in"))
    )
    fields: dict[str, Any] = {
        "objectives": tuple(map(Objective, names)),
        "reference_point": {name: {"error": 1.0}.get(name, dense[name]) for name in names},
        "ideal": dict.fromkeys(names, 0.0),
        "dense": dense,
        "priors": priors,
        "space": {"study": {"search": {"sampler": "auto"}}},
    }
    return a_record(**{**fields, **changes})


def trial_of(k: int, count: int, layers: Sequence[str] = LAYERS) -> tuple[Point, dict[str, float], dict[str, Any]]:
    """The k-th of so many trials: its point, measurements near a curve of error against costs, and sampler's notes."""
    rng = random.Random(k)
    cut = (k + 1) / (count + 1)
    point = Point({layer: _choice(rng, cut, k) for layer in layers})
    noise = 1 + (0.0 if k % 10 == 0 else rng.expovariate(2))
    error = min(0.99, 0.01 + 0.5 * (1 - cut) ** 3 * noise + 1e-7 * k)
    measured = {"error": error, "macs": 1e8 * cut, "bits": 3.2e7 * cut * rng.uniform(0.2, 1), "params": 1e6 * cut}
    coordinates: dict[str, Any] = {"weakening": 2 * (1 - cut)}
    for layer in layers:
        coordinates |= {
            f"factorization:{layer}": point.layers[layer].factorization,
            f"multiplier:{layer}": rng.random(),
        }
    label = "dense" if k == count - 1 else "allocation 0.5" if k % 7 == 0 else "auto"
    return point, measured, {"label": label, "coordinates": coordinates}


def _choice(rng: random.Random, cut: float, k: int) -> Choice:
    if cut > 0.95:
        return Choice("svd", {"rank": 32}) if k % 2 else Choice()
    rank = max(1, round(32 * cut * rng.uniform(0.6, 1)))
    return Choice("svd", {"rank": rank}) if rng.random() < 0.5 else Choice("tucker2", {"rank_out": rank, "rank_in": 8})


def fill(store: Store, record: StudyRecord, count: int) -> StudyRecord:
    """Join the study and give it so many trials, one of which failed."""
    study = store.join(record)
    layers = tuple(dict.fromkeys(prior.layer for prior in record.priors))
    for k in range(count):
        point, measured, notes = trial_of(k, count, layers)
        claim = store.claim(study, replace(point, penalties={"entropy": k + 1.0}), "worker", notes, budget=study.budget)
        assert claim is not None
        outcome = Outcome(State.COMPLETE, measured) if k != 2 else Outcome(State.FAILED, {}, f"it raised {HOSTILE}")
        began = BEGIN + timedelta(minutes=k)
        store.record(study, claim, outcome, Execution(7, began, began + timedelta(minutes=3)))
    return study


@dataclass(frozen=True)
class Many:
    """Stands in for a store with so many trials that recording them would take a minute."""

    record: StudyRecord
    rows: Sequence[TrialRow]
    location: str = "many.sqlite"

    @classmethod
    def of(cls, count: int, names: Sequence[str], layers: Sequence[str]) -> Many:
        record = study_record(names, layers, name="many")
        made = [_row(record, k, count, layers) for k in range(count)]
        kept = nondominated([[row.losses[name] for name in names] for row in made])
        rows = [row if keep else replace(row, dominated_by=0) for row, keep in zip(made, kept, strict=True)]
        return cls(record, rows)

    def study(self, name: str) -> StudyRecord:
        return self.record

    def trials(self, study: StudyRecord) -> list[TrialRow]:
        return list(self.rows)

    def front(self, study: StudyRecord, as_of: int) -> list[TrialRow]:
        return [row for row in self.rows if row.dominated_by is None]


def _row(record: StudyRecord, k: int, count: int, layers: Sequence[str]) -> TrialRow:
    point, measured, notes = trial_of(k, count, layers)
    began = BEGIN + timedelta(minutes=k)
    return TrialRow(
        id=k + 1,
        number=k,
        state=State.COMPLETE,
        measurements=measured,
        losses=record.losses(measured),
        budget=record.budget,
        rng_seed=7,
        worker="worker",
        attempt=1,
        started=began,
        finished=began + timedelta(minutes=3),
        reason="",
        dominated_by=None,
        artifacts=(),
        earlier={},
        point_json=json.dumps(point.to_json()),
        sampler_json=json.dumps(notes),
    )


def in_a_shell(command: str, folder: Path, cwd: Path | str = "/") -> str:
    """What the command prints in a POSIX shell that knows `rank-search`, by a program in the folder."""
    program = folder / "rank-search"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from rank_search.cli import main; main()" "$@"\n')
    program.chmod(0o755)
    root = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    shell = ["/bin/sh", "-c", command]
    return subprocess.run(shell, cwd=cwd, env=environment, check=True, capture_output=True, text=True).stdout

"""Everything a report shows, asked of the store and computed once, as plain JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rank_search.basics import LOOK
from rank_search.report.choices import layers_of
from rank_search.report.commands import commands
from rank_search.report.convergence_data import convergence_data
from rank_search.report.importance import associations
from rank_search.report.references import Reference
from rank_search.store import TOLERANCE, Front, Store, StudyRecord, TrialRow, panels_of, takes_part

Json = dict[str, Any]

_DIGITS: Final = 7
"""Significant digits that travel with the page; it shows four."""


@dataclass(frozen=True)
class SpectrumChart:
    """Singular values of one unfolding of a layer's weight, and the axes (factorization, axis) whose rank it bounds."""

    layer: str
    axes: Sequence[tuple[str, str]]
    values: Sequence[float]


@dataclass(frozen=True)
class _Trials:
    """The trials of a study at one moment, in the order of recording.

    Attributes:
        eligible: those that take part in the front. front: its members, best first.
    """

    rows: Sequence[TrialRow]
    eligible: Sequence[TrialRow]
    front: Front


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows beside what the store has, and how.

    Attributes:
        references: models to compare with.
        spectra: of the layers, if whoever asks has them; the store has none.
        tolerance: how far from the dense model the knee is looked for, and convergence: see `Front.near_dense`.
    """

    references: Sequence[Reference] = ()
    spectra: Sequence[SpectrumChart] | None = None
    tolerance: float = TOLERANCE


def contents(store: Store, location: str, name: str, options: ReportOptions | None = None) -> Json:
    """What the report of a study shows.

    Args:
        location: of the store, as it was given; the commands on the page name it, without any password.

    Raises:
        QueryError: there is no such study, or a reference that cannot be placed.
    """
    options = options or ReportOptions()
    tolerance, spectra, references = options.tolerance, options.spectra, options.references
    study = store.study(name)
    trials = _read(store, study)
    for each in references:
        each.require_known({*study.dense, *study.objective_names}.union(*(row.measurements for row in trials.rows)))
    return {
        "study": _study(study, trials, store.location, datetime.now(UTC)),
        "trials": _columns(study, trials),
        "layers": layers_of(study, trials.rows),
        "pairs": [
            {"x": panel.across, "y": panel.upwards, "front": panel.front}
            for panel in panels_of(study, trials.rows, study.objective_names)
        ],
        "knee": trials.front.knee(tolerance).number if trials.front else None,
        "knee_in_words": trials.front.knee_in_words(tolerance),
        "without_front": "" if trials.front else study.without_front(Counter(row.state for row in trials.rows)),
        "references": [{"name": each.name, "values": each.absolute(study.dense)} for each in references],
        "curves": [_curve(name, points) for name, points in study.reference_curves.items()],
        "convergence": convergence_data(study, trials.rows, _sampler(study), tolerance),
        "importance": {
            name: [asdict(each) for each in found]
            for name, found in associations(trials.eligible, study.objective_names).items()
        },
        "spectra": None if spectra is None else [_spectrum(each) for each in spectra],
        "commands": [asdict(each) for each in commands(location, name)],
        "look": LOOK,
    }


def _read(store: Store, study: StudyRecord) -> _Trials:
    """The front is that of the last of these trials, even if more are recorded meanwhile."""
    rows = store.trials(study)
    front = Front(store.front(study, as_of=rows[-1].number) if rows else (), study, study.objectives)
    return _Trials(rows, [row for row in rows if takes_part(study, row)], front)


def _sampler(study: StudyRecord) -> str:
    kept = study.space.get("study", {})
    return str(kept.get("search", {}).get("sampler", ""))


def _study(study: StudyRecord, trials: _Trials, location: str, made: datetime) -> Json:
    trained = [row for row in trials.rows if row.cut_of is None]
    return {
        "name": study.name,
        "store": location,
        "created": _moment(study.created),
        "made": _moment(made),
        "objectives": [asdict(each) for each in study.objectives],
        "meanings": dict(study.objectives_in_words),
        "dense": {name: _short(value) for name, value in study.dense.items() if math.isfinite(value)},
        "budget": study.budget,
        "examples": study.examples,
        "trials": len(trained),
        "states": dict(Counter(str(row.state) for row in trained)),
        "cuts": len(trials.rows) - len(trained),
        "members": len(trials.front),
        "signal": study.signal_in_words,
    }


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _columns(study: StudyRecord, trials: _Trials) -> Json:
    """A column for each field, a row for each trial: a third of the size of a list of records."""
    rows, members = trials.rows, {row.number for row in trials.front}
    others = sorted({name for row in rows for name in row.measurements} - set(study.objective_names))
    measured = (*study.objective_names, *others)
    penalties = sorted({name for row in rows for name in row.point.penalties})
    return {
        "number": [row.number for row in rows],
        "state": [str(row.state) for row in rows],
        "reason": {row.number: row.reason for row in rows if row.reason},
        "label": [str(row.sampler.get("label", "")) for row in rows],
        "budget": [row.budget for row in rows],
        "member": [int(row.number in members) for row in rows],
        "error_bars": _bars(study, rows),
        "dominated_by": [row.dominated_by for row in rows],
        "measurements": {name: _shortened(row.measurements.get(name) for row in rows) for name in measured},
        "penalties": {name: _shortened(row.point.penalties.get(name) for row in rows) for name in penalties},
    }


def _bars(study: StudyRecord, rows: Sequence[TrialRow]) -> Json:
    """Half of the 95 % interval of each measurement that has one, by trial."""
    found = [study.error_bars(row.measurements) for row in rows]
    names = sorted({name for bars in found for name in bars})
    return {name: _shortened(bars.get(name) for bars in found) for name in names}


def _curve(name: str, points: Sequence[Mapping[str, float]]) -> Json:
    """What others reach: a column for each measurement that all of its points have."""
    names = sorted(set.intersection(*(set(point) for point in points))) if points else []
    return {"name": name, "values": {each: _shortened(point[each] for point in points) for each in names}}


def _spectrum(spectrum: SpectrumChart) -> Json:
    return {"layer": spectrum.layer, "axes": spectrum.axes, "values": _shortened(spectrum.values)}


def _shortened(values: Iterable[float | None]) -> list[float | None]:
    return [None if value is None or not math.isfinite(value) else _short(value) for value in values]


def _short(value: float) -> float:
    return int(value) if value == int(value) else float(f"{value:.{_DIGITS}g}")


def measured_by_members(shown: Mapping[str, Any]) -> list[str]:
    """The measurements that some member of the front has, objectives first."""
    trials = shown["trials"]
    columns: Mapping[str, Sequence[float | None]] = trials["measurements"]
    return [
        name
        for name, column in columns.items()
        if any(value is not None for value, member in zip(column, trials["member"], strict=True) if member)
    ]

"""Names in questions: measurements, and axes of layers (`conv2.rank`) in bounds.

What is common is known from a few trials; only a name that none of these has is looked for in all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, select

from rank_search.basics import nearest
from rank_search.errors import QueryError
from rank_search.point import DENSE, Chosen
from rank_search.store import rows
from rank_search.store.records import StudyRecord
from rank_search.store.sql_in import in_values
from rank_search.store.tables import choice, measurement, prior, trial

_A_FEW: Final = 100
_OF_STUDY: Final = trial.c.study_id == bindparam("study")
_LAST: Final = select(trial.c.id).where(_OF_STUDY).order_by(trial.c.id.desc()).limit(_A_FEW)
_MEASURED: Final = select(measurement.c.name).where(in_values(measurement.c.trial_id, "ids")).distinct()
_EVER_MEASURED: Final = (
    select(measurement.c.name).join(trial, trial.c.id == measurement.c.trial_id).where(_OF_STUDY).distinct()
)
_CHOSEN: Final = (
    select(choice.c.layer, choice.c.axis).where(in_values(choice.c.trial_id, "ids"), choice.c.axis != "").distinct()
)
_WITH_PRIORS: Final = select(prior.c.layer, prior.c.axis).where(prior.c.study_id == bindparam("study")).distinct()
_VALUES: Final = select(choice.c.trial_id, choice.c.value).where(
    in_values(choice.c.trial_id, "ids"), choice.c.layer == bindparam("of_layer"), choice.c.axis == bindparam("of_axis")
)

_TAKEN: Final = (
    select(choice.c.trial_id, choice.c.factorization)
    .where(in_values(choice.c.trial_id, "ids"), choice.c.layer == bindparam("of"))
    .distinct()
)
_TAKEN_LATELY: Final = (
    select(choice.c.layer, choice.c.factorization).where(in_values(choice.c.trial_id, "ids")).distinct()
)
_FITTING: Final = select(prior.c.layer, prior.c.factorization).where(prior.c.study_id == bindparam("study")).distinct()


def with_choices(connection: Connection, names: Sequence[str], measured: rows.Measured) -> rows.Measured:
    """The measurements, and beside them what each trial chose for those names that are axes of layers.

    A measurement of the same name wins. What is chosen without that axis, such as dense, has no number there.
    """
    found = {trial_id: {**chosen} for trial_id, chosen in measured.items()}
    for name in names:
        if not all(name in numbers for numbers in measured.values()):
            _add_choices(connection, name, found)
    return found


def _add_choices(connection: Connection, name: str, found: rows.Measured) -> None:
    layer, _, axis = name.rpartition(".")
    for some in rows.batches(list(found)) if layer else ():
        for trial_id, value in connection.execute(_VALUES, {"ids": some, "of_layer": layer, "of_axis": axis}):
            if value is not None:
                found[trial_id].setdefault(name, value)


def meeting(
    connection: Connection, study: StudyRecord, conditions: Sequence[Chosen], ids: Sequence[int]
) -> Sequence[int]:
    """Those of the trials that chose for each layer what the conditions say; a layer without a choice is dense.

    Raises:
        QueryError: there is no such layer, or nothing of that name for it.
    """
    for condition in conditions:
        _require_choice(connection, study, condition)
        ids = [each for some in rows.batches(list(ids)) for each in _meeting(connection, condition, some)]
    return ids


def _meeting(connection: Connection, condition: Chosen, ids: Sequence[int]) -> list[int]:
    found = {row.trial_id: row.factorization for row in connection.execute(_TAKEN, {"ids": ids, "of": condition.layer})}
    return [trial_id for trial_id in ids if condition.holds(found.get(trial_id, DENSE))]


def _require_choice(connection: Connection, study: StudyRecord, condition: Chosen) -> None:
    last = connection.scalars(_LAST, {"study": study.id}).all()
    pairs = {(layer, name) for layer, name in connection.execute(_FITTING, {"study": study.id})}
    pairs |= {(layer, name) for layer, name in connection.execute(_TAKEN_LATELY, {"ids": last})}
    layers = {layer for layer, _ in pairs}
    if condition.layer not in layers:
        hint = nearest(condition.layer, layers)
        if condition.layer in study.dense:
            hint = f". It is a measurement: write '{condition.layer} <= {condition.factorization}'."
        raise QueryError(f"Study {study.name!r} has no layer {condition.layer!r}{hint}")
    choices = {name for layer, name in pairs if layer == condition.layer} | {DENSE}
    if condition.factorization not in choices:
        raise QueryError(
            f"Layer {condition.layer!r} cannot become {condition.factorization!r}"
            f"{nearest(condition.factorization, choices)}"
        )


def require_known(
    connection: Connection,
    study: StudyRecord,
    bounds: Collection[str],
    others: Collection[str],
    measured: rows.Measured,
) -> None:
    """See that every name means something in this study: in a bound a measurement or an axis, elsewhere a measurement.

    Raises:
        QueryError: one does not; it names the nearest that does.
    """
    known = {*study.objective_names, *study.dense}.union(*measured.values())
    if known.issuperset(bounds) and known.issuperset(others):
        return
    last = connection.scalars(_LAST, {"study": study.id}).all()
    axes = _axes(connection, study, last)
    known |= set(connection.scalars(_MEASURED, {"ids": last}))
    if not (known | axes).issuperset(bounds) or not known.issuperset(others):
        known |= set(connection.scalars(_EVER_MEASURED, {"study": study.id}))
    _complain_about(study, [name for name in others if name not in known], "measurement", known)
    both = known | axes
    _complain_about(study, [name for name in bounds if name not in both], "measurement or axis of a layer", both)


def _axes(connection: Connection, study: StudyRecord, last: Sequence[int]) -> set[str]:
    """LAYER.AXIS for all axes that have a prior, or that one of these trials has."""
    pairs = [*connection.execute(_WITH_PRIORS, {"study": study.id}), *connection.execute(_CHOSEN, {"ids": last})]
    return {f"{layer}.{axis}" for layer, axis in pairs}


def _complain_about(study: StudyRecord, unknown: Sequence[str], what: str, known: Collection[str]) -> None:
    for name in unknown:
        raise QueryError(f"Study {study.name!r} has no {what} {name!r}{nearest(name, known)}")

"""After a cheap search, an expensive confirmation: chosen trials once more, trained for longer, as a study beside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from rank_search.errors import QueryError
from rank_search.launch import LaunchSettings
from rank_search.observe import Report
from rank_search.point import State
from rank_search.run.join import fingerprint
from rank_search.run.open_study import OpenStudy, at_work
from rank_search.search import FixedPoints, SearchTrial
from rank_search.store import Store, StudyRecord, TrialRow
from rank_search.study import Study, study_of
from rank_search.tasks import Task

TIMES: Final = 10
"""How much longer than the study a confirmation trains, if nothing is said."""


@dataclass(frozen=True)
class Confirmation:
    """One trial and what it came to when it was trained for longer: a trial of another study, with its own number."""

    before: TrialRow
    after: TrialRow


@dataclass(frozen=True)
class Confirmed:
    """Trials that have been confirmed.

    Attributes:
        study: the study that holds the confirming trials, named `NAME@EPOCHS`, as the store has it.
        store: where both are kept; `shown` is the same without credentials.
        trials: each chosen trial, in the order chosen.
        front: of all trials that were confirmed so far with that many epochs.
        added: how many trials this call added.
    """

    study: StudyRecord
    store: str = field(repr=False)  # it may hold a password
    shown: str
    trials: tuple[Confirmation, ...]
    front: tuple[TrialRow, ...]
    added: int


def confirm(
    store: str | Path,
    name: str,
    trials: Sequence[int] = (),
    *,
    epochs: float | None = None,
    task: Task | None = None,
    workers: int | None = None,
    launch: LaunchSettings | None = None,
    folder: Path | None = None,
    report: Report = lambda progress: None,
) -> Confirmed:
    """Train chosen trials of a study anew, for longer, as trials of a separate study in the same store.

    That study is named `NAME@EPOCHS`. It is made from the study file of the first one, with other
    `[training] epochs`, without rungs and rows, and its points are those of the chosen trials: it has no sampler.
    Nothing of the first study changes. Calling it again, with the same trials or others, goes on and repeats nothing.

    Args:
        trials: numbers of complete trials; none: the whole front, by its first objective.
        epochs: to train each for; by default ten times as many as in the study, and at least one.
        task: the study's task, when it was made in Python; the trials then run in this process, or on Ray.
        workers, launch: where and how trials run, as in `[launch]`.
        folder: where the relative paths of the study file start now, if it has moved since the study began.
        report: told after every trial how far it is.

    Raises:
        StoreError: there is no such store.
        QueryError: there is no such study or trial, a trial is not complete, the epochs are not more, or the study has
            no input to train on.
        StudyMismatchError: the weights, the plugins or their versions are not those of the study any longer, or the
            task is needed.
        RankSearchError: something else cannot be used.
    """
    settings = launch or LaunchSettings()
    with Store.open(store, patience=settings.store_patience) as opened:
        record = opened.study(name)
        chosen = _chosen(opened, record, trials)
    original = study_of(record, task)
    _require_inputs(original)
    original = original if folder is None else original.model_copy(update={"folder": folder})
    longer = _longer(original, record, _epochs(record, epochs), settings)
    with at_work(longer.launched({"workers": workers}), task, str(store)) as work:
        _require_unchanged(work, original, record)
        joined = work.join()
        added = _confirm_all(work, joined, chosen, report)
        joined = work.store.study(joined.name)
        front = tuple(work.store.front(joined))
        return Confirmed(joined, str(store), work.store.location, _pairs(work.store, joined, chosen), front, added)


# ---- what is confirmed -----------------------------------------------------------------------------------


def _chosen(store: Store, record: StudyRecord, numbers: Sequence[int]) -> Sequence[TrialRow]:
    rows = [store.trial(record, number) for number in dict.fromkeys(numbers)] if numbers else store.front(record)
    if not rows:
        raise QueryError(
            f"The front of study {record.name!r} has no member to confirm. Let the search go on, or name trials."
        )
    for row in rows:
        _require_complete(record, row)
    return rows


def _require_complete(record: StudyRecord, row: TrialRow) -> None:
    if row.state is State.COMPLETE:
        return
    why = f": {row.reason}" if row.reason else ""
    raise QueryError(
        f"Trial {row.number} of study {record.name!r} is {row.state}{why}; only complete trials can be confirmed. "
        "Choose among those that `rank-search front` lists."
    )


def _require_inputs(study: Study) -> None:
    if study.data.source in ("analytic", "none"):
        raise QueryError(
            f'Trials of study {study.name!r} cannot be trained for longer: [data] source = "{study.data.source}" has '
            "no input to train on. Take the trials as they are, or begin a study on synthetic inputs or on data."
        )


def _epochs(record: StudyRecord, wanted: float | None) -> float:
    epochs = max(1.0, TIMES * record.budget) if wanted is None else float(wanted)
    if not record.budget < epochs < math.inf:
        raise QueryError(
            f"{epochs:g} epochs cannot confirm study {record.name!r}, which trains for {record.budget:g} epochs. Ask "
            "for a larger, finite number."
        )
    return epochs


# ---- the study beside ------------------------------------------------------------------------------------


def _longer(original: Study, record: StudyRecord, epochs: float, launch: LaunchSettings) -> Study:
    named = {"name": f"{record.name}@{epochs:g}", "artifacts": record.artifacts.rpartition("/")[0]}
    learned = 0 if original.priors.importances == "auto" else original.priors.importances  # its points are known
    return original.model_copy(
        update={
            "study": original.study.model_copy(update=named),
            "priors": original.priors.model_copy(update={"importances": learned}),
            "search": original.search.model_copy(update={"rungs": None, "row": 0}),
            "training": original.training.model_copy(update={"epochs": epochs}),
            "launch": launch,
        }
    )


def _require_unchanged(work: OpenStudy, original: Study, record: StudyRecord) -> None:
    """A trial is confirmed with what it was made from; joining a study that is there writes nothing."""
    now = fingerprint(replace(work.prepared.problem, study=original))
    work.store.join(replace(record, fingerprint=now))


def _confirm_all(work: OpenStudy, joined: StudyRecord, chosen: Sequence[TrialRow], report: Report) -> int:
    """Until each chosen point is a trial: a driver that confirms others at the same time may take the last numbers."""
    source = FixedPoints([SearchTrial(row.number, row.point, _sampler(row)) for row in chosen])
    wanted, added = {row.point.key for row in chosen}, 0
    if wanted <= _done(work, joined):
        work.finish(joined)
    while not wanted <= (done := _done(work, joined)):
        claimed = {claim.point.key for claim in work.store.claims(joined)}
        _, more = work.drive(joined, source, len(wanted | done | claimed), report)
        added += more
    return added


def _done(work: OpenStudy, joined: StudyRecord) -> set[str]:
    return {row.point.key for row in work.store.trials(joined)}


def _sampler(row: TrialRow) -> dict[str, object]:
    """What is kept beside a confirming trial: which one it confirms, and where that lies in the space."""
    label = {"label": f"confirms {row.number}", "confirms": row.number}
    return {"coordinates": {}, **row.sampler, **label, "attributes": {}, "parents": {}}


def _pairs(store: Store, joined: StudyRecord, chosen: Sequence[TrialRow]) -> tuple[Confirmation, ...]:
    after = {row.point.key: row for row in store.trials(joined)}
    return tuple(Confirmation(row, after[row.point.key]) for row in chosen)

"""Verbs that ask a store: `studies`, `trials`, `front`, `show`, `check`. None of them imports torch."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from rank_search.artifacts import artifacts_at
from rank_search.cli.aside import say
from rank_search.cli.front_table import print_front
from rank_search.cli.output import OutputFormat, Row, print_rows
from rank_search.cli.parameters import FormatOption, NameArgument, StoreArgument, ToleranceOption, TrialArgument
from rank_search.cli.trial_output import (
    front_row,
    layer_cost_rows,
    long_row,
    not_faster,
    print_trial,
    short_row,
    summary,
)
from rank_search.errors import QueryError
from rank_search.point import State, parse_condition
from rank_search.store import TOLERANCE

if TYPE_CHECKING:
    from rank_search.store import Front, Store, StudyRecord, TrialRow

MembersOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A bound that members must keep: 'error <= dense + 0.01', 'macs <= 17%', 'bits <= 200k', "
        "'conv2 = dense', 'conv2.rank <= 16'. Can be repeated."
    ),
]
FrontOption = Annotated[str | None, typer.Option(help="Measurements to take the front of, with commas: 'error,bits'.")]
AsOfOption = Annotated[
    int | None, typer.Option(help="The front as it was when this trial had been recorded.", metavar="TRIAL")
]
KneeOption = Annotated[
    bool, typer.Option("--knee", help="Only the member near dense from which any gain costs most elsewhere.")
]
ClosestOption = Annotated[
    str | None,
    typer.Option(help="Only the member closest to this: 'error=dense+0.01,macs=20%'.", metavar="WISH"),
]
BudgetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        help="Only the best member within this: 'error <= dense + 1%' finds the smallest within one point. "
        "Can be repeated.",
        metavar="BOUND",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    for verb in (studies, trials, front, show, check):
        app.command()(verb)


def studies(store: StoreArgument, format: FormatOption = OutputFormat.TABLE) -> None:
    """List the studies in a store: name, objectives, trials by state, size of the front.

    Example: rank-search studies digits.sqlite
    """
    from rank_search.store import Store

    with Store.open(store) as opened:
        print_rows([summary(each) for each in opened.studies()], format, empty="no studies in this store")


def trials(
    store: StoreArgument,
    name: NameArgument,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="A bound that trials must keep: 'error<=0.03', 'macs<=0.5*dense'. Can be repeated.", metavar="BOUND"
        ),
    ] = None,
    state: Annotated[
        list[State] | None, typer.Option(help="Only trials that ended so. Can be repeated.", metavar="STATE")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the last N.", metavar="N")] = None,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """List the trials of a study by number: how each ended, what was measured, and which trial dominates it.

    Example: rank-search trials digits.sqlite digits --state failed --limit 20
    """
    from rank_search.store import Store

    bounds = [parse_condition(text) for text in where or ()]
    with Store.open(store) as opened:
        rows = opened.listed(opened.study(name), bounds, state or (), limit)
    empty = "no such trials" if bounds or state else "no trials yet"
    print_rows([short_row(row) for row in rows], format, f"trials of {name}", empty=empty)


def front(
    store: StoreArgument,
    name: NameArgument,
    where: MembersOption = None,
    sort: Annotated[str | None, typer.Option(help="Measurement to sort by, best first.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Print at most this many.")] = None,
    objectives: FrontOption = None,
    as_of: AsOfOption = None,
    knee: KneeOption = False,
    tolerance: ToleranceOption = TOLERANCE,
    closest: ClosestOption = None,
    within: BudgetOption = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw it in the terminal, above the table.")] = False,
    format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Print the Pareto front of a study: no other trial is at least as good in everything and better in something.

    Example: rank-search front digits.sqlite digits --where "error<=0.03" --sort macs --limit 5
    """
    from rank_search.store import Store

    choose = _chooser(knee, closest, within, tolerance)
    bounds = [parse_condition(text) for text in where or ()]
    names = None if objectives is None else [each for each in map(str.strip, objectives.split(",")) if each]
    with Store.open(store) as opened:
        study = opened.study(name)
        rows = opened.front(study, where=bounds, sort=sort, limit=limit, objectives=names, as_of=as_of)
        empty = "" if rows else _why_empty(opened, study, bounded=bool(bounds))
        if plot and format is OutputFormat.TABLE and rows:
            _draw(opened, study, names)
    chosen = choose(rows) if rows else []
    if chosen and format is OutputFormat.TABLE:
        print_front_of(chosen, study)
    else:
        print_rows(_shown(chosen, study), format, f"front of {name}", empty=empty)
        if empty and format is not OutputFormat.TABLE:
            typer.echo(empty, err=True)
    _say_signal(study, format)
    if knee and rows:
        typer.echo(rows.knee_in_words(tolerance), err=True)


def print_front_of(members: Sequence[TrialRow], study: StudyRecord) -> None:
    """Print members of a study's front as a table."""
    print_front(members, study, f"front of {study.name}", _shown(members, study))


def _shown(members: Sequence[TrialRow], study: StudyRecord) -> list[Row]:
    return [{**front_row(row, study.dense), **_bars(study, row)} for row in members]


def _bars(study: StudyRecord, row: TrialRow) -> Row:
    """The error bars of a row, if its study has any."""
    found = study.error_bars(row.measurements)
    return {"plus_minus": found} if found else {}


def _why_empty(store: Store, study: StudyRecord, *, bounded: bool) -> str:
    """Nothing to show: no trial is complete, or none of the members keeps the bounds."""
    if store.front(study, limit=1):
        return "no trial of the front keeps these bounds" if bounded else "no trial was on the front then"
    return study.without_front(store.activity(study, study.created).trials)


def _draw(store: Store, study: StudyRecord, names: Sequence[str] | None) -> None:
    """Each pair of objectives as characters, as wide as the terminal."""
    from rank_search.figures import drawn_panels, in_terminal

    width, height = shutil.get_terminal_size((100, 30))
    for panel in drawn_panels(store, study, names):
        typer.echo(in_terminal(panel, min(width, 120), min(height - 2, 28), color=sys.stdout.isatty()))


def _chooser(
    knee: bool, closest: str | None, within: list[str] | None, tolerance: float
) -> Callable[[Front], Sequence[TrialRow]]:
    """Which members are asked for: one, if one of the three options is given, or all.

    Raises:
        QueryError: more than one of them is given.
    """
    given = [name for name, value in (("--knee", knee), ("--closest", closest), ("--budget", within)) if value]
    if len(given) > 1:
        raise QueryError(f"--knee, --closest and --budget exclude each other; got {' and '.join(given)}. Give one.")
    if knee:
        return lambda members: [members.knee(tolerance)]
    if closest:
        return lambda members: [members.closest(closest)]
    if within:
        return lambda members: [members.best(*within)]
    return lambda members: members


def show(
    store: StoreArgument, name: NameArgument, trial: TrialArgument, format: FormatOption = OutputFormat.TABLE
) -> None:
    """Print one trial: its choice for each layer, its measurements and the dense model's, which trial dominates it.

    Example: rank-search show digits.sqlite digits 12
    """
    from rank_search.store import Store

    with Store.open(store) as opened:
        study = opened.study(name)
        row = opened.trial(study, trial)
    shown = {**long_row(row, study.dense), **_bars(study, row), "dense": dict(study.dense)}
    if costs := layer_cost_rows(study, row):
        shown["layer_costs"] = costs
    if format is OutputFormat.TABLE:
        print_trial(shown, study)
        for name, meant in study.meanings.items():
            typer.echo(f"{name}: {meant}")
        typer.echo(not_faster(shown.get("ratios", {})), nl=False)
    else:
        print_rows([shown], format)


def _say_signal(study: StudyRecord, format: OutputFormat) -> None:
    """Of a study whose model stands for one signal: that nothing of it was kept for a test."""
    if study.signal_in_words and format is OutputFormat.TABLE:
        say(study.signal_in_words)


def check(store: StoreArgument, name: NameArgument, format: FormatOption = OutputFormat.TABLE) -> None:
    """Recompute the front by brute force and verify every row and every artifact; exit with 1 if anything is wrong.

    Example: rank-search check digits.sqlite digits
    """
    from rank_search.store import Store, artifact_folder

    with Store.open(store) as opened:
        study = opened.study(name)
        problems = opened.check(study, artifacts_at(study.artifacts, artifact_folder(store, study.folder)))
        count = len(opened.trials(study))
    _say_signal(study, format)
    fine = f"{count} trials, their front and its artifacts are as they should be"
    print_rows([{"problem": problem} for problem in problems], format, f"check of {name}", empty=fine)
    if problems:
        raise typer.Exit(1)

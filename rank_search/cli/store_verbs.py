"""Verbs that ask a store: `studies`, `trials`, `front`, `show`, `check`. None of them imports torch."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any, Final

import typer

from rank_search.artifacts import artifacts_at
from rank_search.cli.output import Format, Row, print_rows
from rank_search.errors import QueryError
from rank_search.fronts import Front, Store, StudyRecord, StudySummary, TrialRow, artifact_folder
from rank_search.point import Bound

StoreArgument = Annotated[str, typer.Argument(help="SQLAlchemy URL, or path of an SQLite file.", metavar="STORE")]
NameArgument = Annotated[str, typer.Argument(help="Name of the study.", metavar="NAME")]
TrialArgument = Annotated[int, typer.Argument(help="Number of the trial.", metavar="TRIAL")]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print.")]

FEWER_MACS: Final = 1.3
FASTER: Final = 1.05
"""From which ratio to the dense model on a trial is said to have fewer MACs, and to be faster."""


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    for verb in (studies, trials, front, show, check):
        app.command()(verb)


def studies(store: StoreArgument, format: FormatOption = Format.TABLE) -> None:
    """List the studies in a store: name, objectives, trials by state, size of the front.

    Example: rank-search studies digits.sqlite
    """
    with Store.open(store) as opened:
        print_rows([_summary(each) for each in opened.studies()], format, empty="no studies in this store")


def trials(store: StoreArgument, name: NameArgument, format: FormatOption = Format.TABLE) -> None:
    """List all trials of a study by number: how each ended, what was measured, and which trial dominates it.

    Example: rank-search trials digits.sqlite digits --format csv
    """
    with Store.open(store) as opened:
        rows = sorted(opened.trials(opened.study(name)), key=attrgetter("number"))
    print_rows([_short_row(row) for row in rows], format, f"trials of {name}", empty="no trials yet")


def front(
    store: StoreArgument,
    name: NameArgument,
    where: Annotated[
        list[str] | None,
        typer.Option(help="A bound that members must keep: 'error<=0.03', 'macs<=0.5*dense'. Can be repeated."),
    ] = None,
    sort: Annotated[str | None, typer.Option(help="Measurement to sort by, best first.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Print at most so many.")] = None,
    objectives: Annotated[
        str | None, typer.Option(help="Measurements to take the front of, with commas: 'error,bits'.")
    ] = None,
    as_of: Annotated[
        int | None, typer.Option(help="The front as it was when this trial had been recorded.", metavar="TRIAL")
    ] = None,
    knee: Annotated[
        bool, typer.Option("--knee", help="Only the member from which any gain costs most elsewhere.")
    ] = False,
    closest: Annotated[
        str | None, typer.Option(help="Only the member closest to this: 'error=0.05,macs=0.5*dense'.", metavar="WISH")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(help="Only the best member within this: 'latency<=3e-3'. Can be repeated.", metavar="BOUND"),
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw it in the terminal, above the table.")] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    """Print the Pareto front of a study: no other trial is at least as good in everything and better in something.

    Example: rank-search front digits.sqlite digits --where "error<=0.03" --sort macs --limit 5
    """
    choose = _chooser(knee, closest, budget)
    bounds = [Bound.parse(text) for text in where or ()]
    names = None if objectives is None else [each for each in map(str.strip, objectives.split(",")) if each]
    with Store.open(store) as opened:
        study = opened.study(name)
        rows = opened.front(study, where=bounds, sort=sort, limit=limit, objectives=names, as_of=as_of)
        if plot and format is Format.TABLE:
            _draw(opened, study, names)
    print_rows(
        [front_row(row, study.dense) for row in choose(rows)],
        format,
        f"front of {name}",
        empty="no trial is on this front",
    )


def _draw(store: Store, study: StudyRecord, names: Sequence[str] | None) -> None:
    """Each pair of objectives as characters, as wide as the terminal."""
    from rank_search.figures import in_terminal, panels_of

    width, height = shutil.get_terminal_size((100, 30))
    for panel in panels_of(store, study, names):
        typer.echo(in_terminal(panel, min(width, 120), min(height - 2, 28), color=sys.stdout.isatty()))


def _chooser(knee: bool, closest: str | None, budget: list[str] | None) -> Callable[[Front], Sequence[TrialRow]]:
    """Which members are asked for: one, if one of the three options is given, or all.

    Raises:
        QueryError: more than one of them is given.
    """
    given = [name for name, value in (("--knee", knee), ("--closest", closest), ("--budget", budget)) if value]
    if len(given) > 1:
        raise QueryError(f"One member is chosen in one way; found {' and '.join(given)}. Leave all but one out.")
    if knee:
        return lambda members: [members.knee()]
    if closest:
        return lambda members: [members.closest(closest)]
    if budget:
        return lambda members: [members.best(*budget)]
    return lambda members: members


def show(store: StoreArgument, name: NameArgument, trial: TrialArgument, format: FormatOption = Format.TABLE) -> None:
    """Print one trial: its choice for each layer, its measurements beside the dense model's, who dominates it.

    Example: rank-search show digits.sqlite digits 12
    """
    with Store.open(store) as opened:
        study = opened.study(name)
        row = opened.trial(study, trial)
    shown = {**_long_row(row, study.dense), "dense": dict(study.dense)}
    if format is Format.TABLE:
        _print_trial(shown)
        typer.echo(not_faster(shown.get("ratios", {})), nl=False)
    else:
        print_rows([shown], format)


def check(store: StoreArgument, name: NameArgument, format: FormatOption = Format.TABLE) -> None:
    """Recompute the front by brute force and verify every row and every artifact; exit with 1 if anything is wrong.

    Example: rank-search check digits.sqlite digits
    """
    with Store.open(store) as opened:
        study = opened.study(name)
        problems = opened.check(study, artifacts_at(study.artifacts, artifact_folder(store, study.folder)))
        count = len(opened.trials(study))
    fine = f"{count} trials, their front and its artifacts are as they should be"
    print_rows([{"problem": problem} for problem in problems], format, f"check of {name}", empty=fine)
    if problems:
        raise typer.Exit(1)


def front_row(row: TrialRow, dense: Mapping[str, float]) -> dict[str, Any]:
    """A member of a front as printed; with its ratios where latency was measured."""
    found = ratios(row.measurements, dense)
    return {
        "trial": row.number,
        "measurements": dict(row.measurements),
        **({"ratios": found} if found else {}),
        "losses": dict(row.losses),
        **row.point.to_json(),
    }


def ratios(measurements: Mapping[str, float], dense: Mapping[str, float]) -> dict[str, float]:
    """How many times fewer MACs than the dense model, and how many times faster; nothing without a latency.

    >>> ratios({"macs": 50.0, "latency": 0.02}, {"macs": 100.0, "latency": 0.02})
    {'macs': 2.0, 'latency': 1.0}
    """
    if not (measurements.get("latency") and dense.get("latency")):
        return {}
    found = {name: _ratio(dense.get(name), measurements.get(name, 0.0)) for name in ("macs", "latency")}
    return {name: ratio for name, ratio in found.items() if ratio is not None}


def not_faster(found: Mapping[str, float]) -> str:
    """A sentence where the MACs are fewer and the model is not faster for it; nothing otherwise.

    >>> not_faster({"macs": 2.0, "latency": 1.01})
    'It has 2.0× fewer MACs than the dense model, but is not faster: 1.01× as measured.\\n'
    >>> not_faster({"macs": 2.0, "latency": 1.5})
    ''
    """
    macs, latency = found.get("macs", 1.0), found.get("latency", 1.0)
    if macs < FEWER_MACS or latency >= FASTER:
        return ""
    return f"It has {macs:.1f}× fewer MACs than the dense model, but is not faster: {latency:.2f}× as measured.\n"


def _summary(summary: StudySummary) -> Row:
    return {
        "study": summary.name,
        "created": summary.created.isoformat(timespec="seconds"),
        "objectives": [objective.name for objective in summary.objectives],
        "trials": {str(state): count for state, count in summary.trials.items()},
        "in_flight": summary.in_flight,
        "on_front": summary.on_front,
    }


def _short_row(row: TrialRow) -> Row:
    return {
        "trial": row.number,
        "state": str(row.state),
        "label": row.sampler.get("label", ""),
        "measurements": dict(row.measurements),
        "dominated_by": row.dominated_by,
        "seconds": round((row.finished - row.started).total_seconds(), 3),
        "reason": row.reason,
    }


def _long_row(row: TrialRow, dense: Mapping[str, float]) -> dict[str, Any]:
    return {
        **front_row(row, dense),
        "state": str(row.state),
        "reason": row.reason,
        "dominated_by": row.dominated_by,
        "label": row.sampler.get("label", ""),
        "budget": row.budget,
        "rng_seed": row.rng_seed,
        "worker": row.worker,
        "attempt": row.attempt,
        "started": row.started.isoformat(timespec="seconds"),
        "finished": row.finished.isoformat(timespec="seconds"),
        "artifacts": {each.kind: each.location for each in row.artifacts},
        "earlier": [{"budget": budget, **measured} for budget, measured in sorted(row.earlier.items())],
    }


def _print_trial(shown: dict[str, Any]) -> None:
    layers, measurements, dense, earlier = (shown.pop(key) for key in ("layers", "measurements", "dense", "earlier"))
    print_rows([{"field": key, "value": value} for key, value in _pairs(shown)], Format.TABLE, "trial")
    rows = [
        {"measurement": key, "value": value, "dense": dense.get(key), "ratio": _ratio(dense.get(key), value)}
        for key, value in measurements.items()
    ]
    print_rows(rows, Format.TABLE, "measurements", empty="nothing was measured")
    if earlier:
        print_rows(earlier, Format.TABLE, "at smaller budgets")
    choices = [{"layer": key, **_choice(choice)} for key, choice in layers.items()]
    print_rows(choices, Format.TABLE, "layers", empty="no layers")


def _pairs(shown: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        pair
        for key, value in shown.items()
        for pair in (
            [(f"{key}.{inner}", item) for inner, item in value.items()] if isinstance(value, dict) else [(key, value)]
        )
    ]


def _ratio(dense: float | None, value: float) -> float | None:
    return dense / value if dense is not None and value else None


def _choice(choice: dict[str, Any] | str) -> dict[str, Any]:
    return {"factorization": choice} if isinstance(choice, str) else choice

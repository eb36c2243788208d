"""Verbs that ask a store: `studies`, `trials`, `front`, `show`, `check`. None of them imports torch."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Any

import typer

from rank_search.artifacts import artifacts_at
from rank_search.cli.output import Format, Row, print_rows
from rank_search.fronts import Store, StudySummary, TrialRow, artifact_folder
from rank_search.point import Bound

StoreArgument = Annotated[str, typer.Argument(help="SQLAlchemy URL, or path of an SQLite file.", metavar="STORE")]
NameArgument = Annotated[str, typer.Argument(help="Name of the study.", metavar="NAME")]
TrialArgument = Annotated[int, typer.Argument(help="Number of the trial.", metavar="TRIAL")]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print.")]


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
    format: FormatOption = Format.TABLE,
) -> None:
    """Print the Pareto front of a study: no other trial is at least as good in everything and better in something.

    Example: rank-search front digits.sqlite digits --where "error<=0.03" --sort macs --limit 5
    """
    bounds = [Bound.parse(text) for text in where or ()]
    names = None if objectives is None else [each for each in map(str.strip, objectives.split(",")) if each]
    with Store.open(store) as opened:
        rows = opened.front(opened.study(name), where=bounds, sort=sort, limit=limit, objectives=names, as_of=as_of)
    print_rows([front_row(row) for row in rows], format, f"front of {name}", empty="no trial is on this front")


def show(store: StoreArgument, name: NameArgument, trial: TrialArgument, format: FormatOption = Format.TABLE) -> None:
    """Print one trial: its choice for each layer, its measurements beside the dense model's, who dominates it.

    Example: rank-search show digits.sqlite digits 12
    """
    with Store.open(store) as opened:
        study = opened.study(name)
        row = opened.trial(study, trial)
    shown = {**_long_row(row), "dense": dict(study.dense)}
    if format is Format.TABLE:
        _print_trial(shown)
    else:
        print_rows([shown], format)


def check(store: StoreArgument, name: NameArgument, format: FormatOption = Format.TABLE) -> None:
    """Recompute the front by brute force and verify every row and every artifact; exit with 1 if anything is wrong.

    Example: rank-search check digits.sqlite digits
    """
    with Store.open(store) as opened:
        study = opened.study(name)
        problems = opened.check(study, artifacts_at(study.artifacts, artifact_folder(store, name)))
        count = len(opened.trials(study))
    fine = f"{count} trials, their front and its artifacts are as they should be"
    print_rows([{"problem": problem} for problem in problems], format, f"check of {name}", empty=fine)
    if problems:
        raise typer.Exit(1)


def front_row(row: TrialRow) -> dict[str, Any]:
    """A member of a front as printed."""
    return {
        "trial": row.number,
        "measurements": dict(row.measurements),
        "losses": dict(row.losses),
        **row.point.to_json(),
    }


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


def _long_row(row: TrialRow) -> dict[str, Any]:
    return {
        **front_row(row),
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

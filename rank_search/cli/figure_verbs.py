"""Verbs that draw: `plot` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rank_search.cli.output import OutputFormat, print_rows
from rank_search.cli.parameters import FormatOption, NameArgument, OverwriteOption, StoreArgument
from rank_search.cli.writing import require_free

OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Picture to write: .svg, .png or .pdf.")]
ObjectivesOption = Annotated[
    str | None, typer.Option(help="Measurements to set against each other, with commas: 'error,bits'.")
]


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command()(plot)
    app.command()(compare)


def plot(
    store: StoreArgument,
    name: NameArgument,
    output: OutputOption,
    objectives: ObjectivesOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw the front of a study for a paper or a README: each pair of objectives, the dense model, the knee.

    Example: rank-search plot digits.sqlite digits -o front.svg
    """
    from rank_search.figures import draw_front, drawn_panels
    from rank_search.store import Store

    require_free(output, overwrite)
    with Store.open(store) as opened:
        study = opened.study(name)
        panels = drawn_panels(opened, study, names_in(objectives))
        states = opened.activity(study, study.created).trials
    draw_front(panels, output)
    typer.echo(f"wrote {output}")
    if not any(panel.front for panel in panels):
        typer.echo(study.without_front(states), err=True)


def compare(
    store: StoreArgument,
    names: Annotated[
        list[str],
        typer.Argument(help="Two or more studies; LABEL=NAME,NAME,… puts several under one label.", metavar="NAME..."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Picture to write as well: .svg, .png or .pdf.")
    ] = None,
    format: FormatOption = OutputFormat.TABLE,
    overwrite: OverwriteOption = False,
) -> None:
    """Set studies of the same objectives side by side: hypervolume after as many trials, and their fronts drawn.

    Example: rank-search compare digits.sqlite digits digits-tpe -o compare.svg
    """
    from rank_search.figures import compare_studies, draw_comparison, rows_of
    from rank_search.store import Store

    if output is not None:
        require_free(output, overwrite)
    with Store.open(store) as opened:
        found = compare_studies(opened, names)
        empty = [
            study.without_front(opened.activity(study, study.created).trials)
            for each in found
            for study in each.without_front
        ]
    print_rows(rows_of(found), format, "hypervolume by number of trials")
    for sentence in empty:
        typer.echo(sentence, err=True)
    if output is not None:
        draw_comparison(found, output)
        typer.echo(f"wrote {output}", err=format is not OutputFormat.TABLE)


def names_in(text: str | None) -> list[str] | None:
    """Names with commas between them; None stays None."""
    return None if text is None else [each for each in map(str.strip, text.split(",")) if each]

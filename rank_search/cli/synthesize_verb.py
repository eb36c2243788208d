"""The verb `synthesize`: inputs made from a model's batch norms alone, and a picture of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rank_search.cli.aside import quiet
from rank_search.cli.parameters import OverwriteOption, StudyArgument
from rank_search.cli.writing import require_free


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(synthesize)


def synthesize(
    study: StudyArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture to write: .png.")],
    overwrite: OverwriteOption = False,
) -> None:
    """Make images on which the model's batch norms see the statistics they stored, and draw them on one sheet.

    No data is looked at. The images, all batches of [data], are kept in the study's cache folder, where a study with
    [data] source = "synthetic" finds them. Look at the sheet: images that are all alike, or noise, calibrate badly.

    Example: rank-search synthesize studies/cifar_resnet.toml -o samples.png
    """
    from rank_search.sources import cached, contact_sheet
    from rank_search.study import cache_folder, load_study, read_problem
    from rank_search.trials import threads

    require_free(output, overwrite)
    problem = read_problem(load_study(study))
    settings = problem.study
    with threads(settings.launch.torch_threads), _bar("synthesizing") as progress:
        made = cached(
            problem.original,
            problem.task.example(),
            settings=settings.data.synthesis,
            seed=settings.study.seed,
            folder=cache_folder(settings),
            progress=progress,
        )
    contact_sheet(made, output)
    typer.echo(f"wrote {output}")


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, and nothing elsewhere."""
    console = Console(markup=False, emoji=False, stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} steps"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=quiet() or not console.is_terminal, transient=True
    ) as shown:
        task = shown.add_task(name, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)

"""The verb that makes a page of a study: `report`. It imports torch only if it is asked for spectra."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rank_search.cli.aside import say
from rank_search.cli.parameters import NameArgument, OverwriteOption, StoreArgument, ToleranceOption
from rank_search.cli.writing import require_free
from rank_search.store import TOLERANCE

if TYPE_CHECKING:
    from rank_search.report import SpectrumChart
    from rank_search.store import StudyRecord


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command()(report)


def report(
    store: StoreArgument,
    name: NameArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.", metavar="FILE")] = Path(
        "report.html"
    ),
    reference: Annotated[
        list[str] | None,
        typer.Option(
            help="A point to compare with, such as a published one: 'ours:error=0.05,macs=0.5*dense'. Can be repeated.",
            metavar="NAME:MEASUREMENT=NUMBER,…",
        ),
    ] = None,
    spectra: Annotated[
        bool, typer.Option("--spectra", help="Ask the study's task for its model, and show the layers' spectra.")
    ] = False,
    tolerance: ToleranceOption = TOLERANCE,
    overwrite: OverwriteOption = False,
) -> None:
    """Write one HTML file that shows the front, what was chosen for each layer and why, and whether it converged.

    It needs no network and no server: send it to whoever must choose a model.

    Example: rank-search report digits.sqlite digits -o digits.html --reference "ours:error=0.02,macs=0.3*dense"
    """
    from rank_search.report import Reference, ReportOptions, require_page, write_report
    from rank_search.store import Store

    require_page(output)
    require_free(output, overwrite)
    references = [Reference.parse(text) for text in reference or ()]
    with Store.open(store) as opened:
        found = _spectra(opened.study(name)) if spectra else None
        options = ReportOptions(references, found, tolerance=tolerance)
        write_report(opened, store, name, output, options)
    say(f"The report of {name} is in {output}.")


def _spectra(record: StudyRecord) -> list[SpectrumChart]:
    """Of every unfolding that an axis of a layer is about; of equal ones only the first, with the axes of all."""
    from rank_search.layers import axes_of
    from rank_search.report import SpectrumChart
    from rank_search.run import begin, layer_bases
    from rank_search.study import study_of
    from rank_search.tasks import LayerMoments

    problem = begin(study_of(record))
    known = layer_bases(problem, LayerMoments())
    found: dict[tuple[str, tuple[float, ...]], list[tuple[str, str]]] = {}
    for layer, names in problem.choices.items():
        bases = known[layer]
        for name in names:
            for axis in axes_of(problem.plugins[name], problem.inventory.layers[layer]):
                for unfolding in axis.unfoldings:
                    key = layer, tuple(bases.spectrum(unfolding).values.tolist())
                    found.setdefault(key, []).append((name, axis.name))
    return [SpectrumChart(layer, axes, values) for (layer, values), axes in found.items()]

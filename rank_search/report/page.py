"""The page: the template, its style, its scripts and plotly.js, all in one file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rank_search.basics import plus_minus, replace_whole, short_number
from rank_search.errors import ExportError
from rank_search.report.contents import ReportOptions, contents, measured_by_members
from rank_search.store import Store

SCRIPTS: Final = ("state", "drawing", "front", "choices", "why", "convergence", "trial", "start")
"""The page's own scripts, in the order in which they need each other."""


SUFFIXES: Final = (".html", ".htm")


def write_report(store: Store, location: str, name: str, target: Path, options: ReportOptions | None = None) -> None:
    """Write the report of a study into a file, in place of what was there.

    Args:
        location: of the store, as it was given; the commands on the page name it, without any password.

    Raises:
        QueryError: there is no such study, or a reference that cannot be placed.
        ExportError: the file's name is not that of a page, or it cannot be written.
    """
    require_page(target)
    page = render(contents(store, location, name, options))
    try:
        replace_whole(target, page.encode())
    except OSError as error:
        raise ExportError(f"The report could not be written to {target}: {error.strerror or error}.") from error


def require_page(target: Path) -> None:
    """See that the name is that of an HTML file.

    Raises:
        ExportError: it is not.
    """
    if target.suffix.lower() not in SUFFIXES:
        raise ExportError(
            f"{target.name!r} does not end in {' or '.join(SUFFIXES)}: a report is an HTML page. `rank-search plot` "
            "draws .svg, .png and .pdf, and a browser prints the page as PDF."
        )


def render(shown: Mapping[str, Any]) -> str:
    """The page that shows the contents: HTML that asks nothing of any other file or host."""
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            shown=shown,
            columns=measured_by_members(shown),
            style=Markup(_file("report.css")),  # noqa: S704 - our own file
            plotly=Markup(_plotly()),  # noqa: S704 - plotly's own script
            script=Markup("\n".join(_file(f"{each}.js") for each in SCRIPTS)),  # noqa: S704 - our own files
        )
    )


@cache
def _environment() -> Environment:
    """Everything that comes from a store is escaped: as text by `autoescape`, as data by the filter `tojson`."""
    environment = Environment(
        loader=PackageLoader("rank_search.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": short_number, "plus_minus": plus_minus}
    # Objects keep their order: that of layers and measurements carries meaning.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False, "separators": (",", ":")}
    return environment


def _file(name: str) -> str:
    return resources.files("rank_search.report").joinpath("page", name).read_text(encoding="utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script

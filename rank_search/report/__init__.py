"""The report of a study: one HTML file that shows its front, what was chosen and why, and works without a network.

    with Store.open("digits.sqlite") as store:
        ours = Reference.parse("ours:error=0.02,macs=1e6")
        write_report(store, "digits.sqlite", "digits", Path("report.html"), ReportOptions([ours]))

`contents` asks the store and computes everything; `page` puts it into the template; the scripts in `page/` draw it.
"""

from __future__ import annotations

from rank_search.report.contents import ReportOptions, SpectrumChart
from rank_search.report.page import require_page, write_report
from rank_search.report.references import Reference

__all__ = [
    "Reference",
    "ReportOptions",
    "SpectrumChart",
    "require_page",
    "write_report",
]

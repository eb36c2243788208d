"""A disk that fails, fills or loses power while a report is written: the old page or the new one is there, whole."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from rank_search.basics import PART
from rank_search.errors import ExportError
from rank_search.report import write_report
from rank_search.store import Store
from tests.artifacts.disk import Disk, PowerLossError
from tests.artifacts.test_disks import faults
from tests.report.report_tools import fill, study_record

OLD = "<!doctype html>the report of yesterday"


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rank_search.report.page._plotly", lambda: "")  # 4 MB, each time
    with Store.open(tmp_path / "s.sqlite", create=True) as store:
        study = fill(store, study_record(), 8)

        def write(folder: Path) -> None:
            (folder / "page.html").write_text(OLD)
            write_report(store, "s.sqlite", study.name, folder / "page.html")

        for folder, fault in faults(tmp_path, write):
            page, done = folder / "page.html", False
            page.write_text(OLD)
            with Disk(folder, fault) as disk, contextlib.suppress(ExportError, PowerLossError):
                write_report(store, "s.sqlite", study.name, page)
                done = True
            if fault.kind == "power":
                disk.lose()
            else:
                assert not [each for each in folder.iterdir() if each.name.endswith(PART)], fault
            found = page.read_text(encoding="utf-8")
            assert found.rstrip().endswith("</html>") or (found == OLD and not done), fault

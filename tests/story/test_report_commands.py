"""What a report says to type does what it says, for the trial that is selected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

import rank_search as rs
from rank_search.report import write_report
from rank_search.study import problem_of
from tests.report.report_tools import in_a_shell
from tests.story.small import Small

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext


@pytest.mark.parametrize(
    ("does", "is_folder"), [("writes the model into a folder", True), ("writes it into one file", False)]
)
def test_the_copied_command_makes_the_model(
    browser: BrowserContext, copied: Small, tmp_path: Path, does: str, is_folder: bool
) -> None:
    page_file, target = tmp_path / "report.html", tmp_path / "made"
    target.mkdir()
    with rs.Store.open(copied.store) as store:
        write_report(store, copied.store, "stripes", page_file)
        row = store.front(store.study("stripes"))[-1]
        problem = problem_of(store.study("stripes"))
    page = browser.new_page()
    page.goto(page_file.as_uri())
    page.wait_for_selector("html[data-complete]", state="attached")
    page.fill("#number", str(row.number))
    page.press("#number", "Enter")
    page.get_by_role("button", name=f"Copy the command that {does}").click()
    page.get_by_text("Copied", exact=True).wait_for()
    command = str(page.evaluate("navigator.clipboard.readText()"))
    page.close()
    in_a_shell(command, tmp_path, target)
    (found,) = target.iterdir()
    assert found.is_dir() == is_folder
    with torch.no_grad():
        measured = problem.task.evaluate(rs.load(found), problem.task.selection())
    assert float(measured["error"]) == row.measurements["error"]

"""A report of many trials in a browser: seconds of the page's own thread, against the page with ten trials.

Run: python -m benchmarks.report_page [--trials 10000] [--loads 3]
Needs Chromium (`chromium` on the PATH) and the developers' tools.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from rank_search.report.contents import contents
from rank_search.report.page import render
from tests.report.report_tools import Many

LAYERS = [f"stage{k // 4}.block{k % 4}.conv" for k in range(20)]


def main() -> None:
    """Least seconds of several loads, up to the last figure: those of the wall say who else is on the machine."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--loads", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        few, many = (page(Path(folder), count) for count in (10, asked.trials))
        base, found = (min(seconds(browser, file) for _ in range(asked.loads)) for file in (few, many))
        browser.close()
    print(f"10 trials {base:.2f} s, {asked.trials:,} trials {found:.2f} s: {found / base:.2f} times as long")


def page(folder: Path, trials: int) -> Path:
    """A report of a made-up study."""
    many = Many.of(trials, ("error", "macs"), LAYERS)
    file = folder / f"{trials}.html"
    file.write_text(render(contents(many, "many.sqlite", "many")), encoding="utf-8")  # type: ignore[arg-type]
    return file


def seconds(browser: Browser, file: Path) -> float:
    """Of the page's own thread, until it is complete."""
    opened = browser.new_page()
    session = opened.context.new_cdp_session(opened)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    opened.goto(file.as_uri())
    opened.wait_for_selector("html[data-complete]", state="attached")
    spent = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    opened.close()
    return float(spent["TaskDuration"])


if __name__ == "__main__":
    main()
